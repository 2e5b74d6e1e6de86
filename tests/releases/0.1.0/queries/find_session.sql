-- Find a session of the owner's, or of anyone's.
-- $1 session_id  $2 owner  $3 whether any owner will do
SELECT id, owner, character_id, title, status, message_count, created_at, updated_at
FROM agent_sessions
WHERE id = $1 AND (owner = $2 OR $3)
