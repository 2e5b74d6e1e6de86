-- Delete a session of the owner's; messages, turns and events go with it.
-- $1 session_id  $2 owner
DELETE FROM agent_sessions
WHERE id = $1 AND owner = $2
RETURNING id
