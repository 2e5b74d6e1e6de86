"""Who did what: recorded, chained so that nothing can be changed unseen, verified, pruned; and a person erased."""
