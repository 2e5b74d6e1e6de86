"""One module a resource: decode, check, one call, answer."""
