-- List the owner's sessions, latest activity first, from behind a place in that order.
-- $1 owner  $2 updated_at and $3 session_id of the place, or null  $4 limit
SELECT id, owner, character_id, title, status, message_count, created_at, updated_at
FROM agent_sessions
WHERE owner = $1 AND (updated_at, id) < (coalesce($2::timestamptz, 'infinity'), coalesce($3::text, ''))
ORDER BY updated_at DESC, id DESC
LIMIT $4
