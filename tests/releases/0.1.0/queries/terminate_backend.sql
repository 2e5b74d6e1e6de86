-- End a connection whose last statement is in doubt: what has not been committed when it is gone never will be.
-- $1 its process id
SELECT pg_terminate_backend($1, 3000) OR NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1) AS gone
