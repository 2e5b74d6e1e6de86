"""`chatd export` and `chatd import`: sessions with their messages as JSON Lines, out of a database and into one."""
