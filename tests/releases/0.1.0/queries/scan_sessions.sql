-- List sessions, whoever's they are, in the order of their ids.
-- $1 only those after this id  $2 limit
SELECT id, owner, character_id, title, status, message_count, created_at, updated_at
FROM agent_sessions
WHERE id > $1
ORDER BY id
LIMIT $2
