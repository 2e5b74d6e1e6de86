-- Tell the other processes, and this one, something.
-- $1 what
SELECT pg_notify('chatd', $1)
