-- Add messages as an export has them, in this order. One that is there: unique violation of agent_messages_pkey.
-- An array a column: $1 session_id  $2 id  $3 role  $4 content  $5 content_blocks as JSON  $6 status  $7 model
-- $8 stop_reason  $9 token_usage as JSON  $10 created_at
INSERT INTO agent_messages
    (session_id, id, role, content, content_blocks, status, model, stop_reason, token_usage, created_at)
SELECT session_id, id, role, content, content_blocks::jsonb, status, model, stop_reason, token_usage::jsonb, created_at
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::timestamptz[]
) WITH ORDINALITY AS message (
    session_id, id, role, content, content_blocks, status, model, stop_reason, token_usage, created_at, place
)
ORDER BY place
