-- Make a session as an export has it, where none has its id. `owner`: whose the one is that was there.
-- $1 session_id  $2 owner  $3 character_id  $4 title or null  $5 status  $6 message_count  $7 created_at  $8 updated_at
WITH made AS (
    INSERT INTO agent_sessions (id, owner, character_id, title, status, message_count, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
SELECT EXISTS (SELECT FROM made) AS made, (SELECT owner FROM agent_sessions WHERE id = $1) AS owner
