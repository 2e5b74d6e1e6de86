"""`chatd doctor`: looks at all that chatd needs, or at a deployed server as its clients see it."""
