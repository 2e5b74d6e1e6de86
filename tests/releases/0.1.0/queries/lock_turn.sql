-- Lock a turn's row.
-- $1 turn_id
SELECT epoch FROM agent_turns WHERE id = $1 FOR NO KEY UPDATE
