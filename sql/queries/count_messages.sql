-- Count the messages of some owners, or of all, as their sessions say: for a progress bar, so all sessions are read.
-- $1 owners, or null
SELECT coalesce(sum(message_count), 0)::bigint AS messages
FROM agent_sessions
WHERE $1::text[] IS NULL OR owner = ANY ($1)
