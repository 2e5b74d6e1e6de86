-- Read a page of a session of the owner's as JSON: written here it costs a third of what it costs to be taken apart, made
-- objects of, and put together again. One row; none: no such session. The keys are those of schemas.MessageSchema.
-- By hand, which takes two thirds of row_to_json's time. A page ends early once its JSON has 4 MiB, which a slow reader
-- has held for it here: each text is in it twice, and an escape makes six characters of one.
-- $1 session_id  $2 owner  $3 id of the message before which, or $4 after which the page is, or null  $5 limit
-- $6 whether any owner will do
WITH place AS (
    SELECT seq FROM agent_messages WHERE id = coalesce($3, $4) AND session_id = $1
), page AS (
    (
        SELECT * FROM agent_messages
        WHERE session_id = $1
            AND seq < CASE WHEN $3::text IS NULL THEN 9223372036854775807 ELSE (SELECT seq FROM place) END
        ORDER BY seq DESC
        LIMIT CASE WHEN $4::text IS NULL THEN $5::bigint ELSE 0 END
    )
    UNION ALL
    (
        SELECT * FROM agent_messages
        WHERE session_id = $1 AND seq > (SELECT seq FROM place)
        ORDER BY seq
        LIMIT CASE WHEN $4::text IS NULL THEN 0 ELSE $5::bigint END
    )
), sized AS ( -- as they come: each half of the page is in order, and one of them is empty
    SELECT *, sum(octet_length(content)) OVER (ROWS UNBOUNDED PRECEDING) AS size FROM page
), message AS (
    SELECT seq, id,
        '{"id":"' || id || '","role":"' || role
        || '","content":' || to_json(content)
        || ',"content_blocks":' || coalesce(content_blocks::text, CASE WHEN content = '' THEN '[]'
            ELSE '[{"type":"text","text":' || to_json(content) || '}]' END)
        || ',"created_at":"' || to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        || '","token_usage":' || coalesce(token_usage::text, 'null')
        || ',"status":"' || status
        || '","model":' || coalesce(to_json(model)::text, 'null')
        || ',"stop_reason":' || coalesce(to_json(stop_reason)::text, 'null') || '}' AS json
    FROM sized
    WHERE size - octet_length(content) < 2097152
), escaped AS (
    SELECT *, sum(octet_length(json)) OVER (ROWS UNBOUNDED PRECEDING) AS size FROM message
), shown AS (
    SELECT seq, id, json FROM escaped WHERE size - octet_length(json) < 4194304
), oldest AS (
    SELECT id, seq FROM shown ORDER BY seq LIMIT 1
)
SELECT
    owner,
    status,
    message_count,
    coalesce($3, $4) IS NULL OR EXISTS (SELECT FROM place) AS has_place,
    (SELECT id FROM oldest WHERE EXISTS (
        SELECT FROM agent_messages WHERE session_id = $1 AND seq < (SELECT seq FROM oldest)
    )) AS before,
    (SELECT coalesce(string_agg(json, ',' ORDER BY seq), '') FROM shown) AS messages
FROM agent_sessions
WHERE id = $1 AND (owner = $2 OR $6)
