-- List the latest messages of a session that come before a place, latest first.
-- $1 session_id  $2 seq of the place, or null for the end  $3 limit
SELECT id, seq, role, content, content_blocks, status, model, stop_reason, token_usage, created_at
FROM agent_messages
WHERE session_id = $1 AND seq < coalesce($2, 9223372036854775807)
ORDER BY seq DESC
LIMIT $3
