-- List a session's messages in order. A page ends once its messages have 2 MiB, or one.
-- First by what is stored, which costs nothing to know but may be compressed; then by what it is.
-- $1 session_id  $2 only those after this seq  $3 limit
SELECT id, seq, role, content, content_blocks, status, model, stop_reason, token_usage, created_at
FROM (
    SELECT *, sum(octet_length(content) + coalesce(octet_length(content_blocks::text), 0)) OVER before AS size
    FROM (
        SELECT *, sum(octet_length(content) + coalesce(pg_column_size(content_blocks), 0)) OVER before AS stored
        FROM (SELECT * FROM agent_messages WHERE session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS page
        WINDOW before AS (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ) AS stored
    WHERE coalesce(stored, 0) < 2097152
    WINDOW before AS (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
) AS sized
WHERE coalesce(size, 0) < 2097152
ORDER BY seq
