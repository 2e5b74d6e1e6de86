-- Find a message by id within its session.
-- $1 session_id  $2 message_id
SELECT id, seq, role, content, content_blocks, status, model, stop_reason, token_usage, created_at
FROM agent_messages
WHERE id = $2 AND session_id = $1
