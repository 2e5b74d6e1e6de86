-- List a session's messages in order. A page ends once its messages have 4 MiB.
-- $1 session_id  $2 only those after this seq  $3 limit
SELECT id, seq, role, content, content_blocks, status, model, stop_reason, token_usage, created_at
FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY seq) AS size
    FROM (SELECT * FROM agent_messages WHERE session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS page
) AS sized
WHERE size - octet_length(content) < 4194304
ORDER BY seq
