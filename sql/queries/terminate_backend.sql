-- End a connection whose last statement is in doubt: what has not been committed when it is gone never will be.
-- Where PostgreSQL was started again meanwhile, or is another one, its process id may be anybody's.
-- $1 its process id
SELECT coalesce(
    (
        SELECT pg_terminate_backend(pid, 3000) FROM pg_stat_activity
        WHERE pid = $1 AND usename = current_user AND backend_type = 'client backend'
    ),
    true
) OR NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1) AS gone
