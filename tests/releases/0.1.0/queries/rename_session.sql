-- Give a session of the owner's another title, or none; its place among the others stays.
-- $1 session_id  $2 owner  $3 title or null
UPDATE agent_sessions SET title = $3
WHERE id = $1 AND owner = $2
RETURNING id, owner, character_id, title, status, message_count, created_at, updated_at
