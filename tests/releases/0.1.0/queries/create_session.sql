-- Create a session, with its system prompt as the first message where there is one.
-- $1 session_id  $2 owner  $3 character_id  $4 title or null  $5 message_id  $6 system prompt or null
WITH session AS (
    INSERT INTO agent_sessions (id, owner, character_id, title, message_count)
    VALUES ($1, $2, $3, $4, CASE WHEN $6::text IS NULL THEN 0 ELSE 1 END)
    RETURNING id, owner, character_id, title, status, message_count, created_at, updated_at
), prompt AS (
    INSERT INTO agent_messages (id, session_id, role, content)
    SELECT $5, id, 'system', $6 FROM session WHERE $6::text IS NOT NULL
)
SELECT id, owner, character_id, title, status, message_count, created_at, updated_at FROM session
