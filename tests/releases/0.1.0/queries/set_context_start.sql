-- Move the start of what is sent upstream forward, never back.
-- $1 session_id  $2 seq
UPDATE agent_sessions SET context_start = $2
WHERE id = $1 AND context_start < $2
