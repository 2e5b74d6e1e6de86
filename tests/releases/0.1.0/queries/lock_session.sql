-- Lock a session's row.
-- $1 session_id
SELECT id FROM agent_sessions WHERE id = $1 FOR NO KEY UPDATE
