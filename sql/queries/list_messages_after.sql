-- List the messages of a session that come after a place, oldest first.
-- $1 session_id  $2 seq of the place  $3 limit
SELECT id, seq, role, content, content_blocks, status, model, stop_reason, token_usage, created_at
FROM agent_messages
WHERE session_id = $1 AND seq > $2
ORDER BY seq
LIMIT $3
