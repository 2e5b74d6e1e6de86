-- End a connection whose last statement is in doubt: what has not been committed by now never will be.
-- $1 its process id
SELECT pg_terminate_backend($1, 3000) AS terminated
