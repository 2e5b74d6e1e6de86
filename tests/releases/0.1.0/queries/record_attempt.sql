-- Record that a turn is about to ask the model again; no row: the turn is another process's now, or over.
-- $1 turn_id  $2 epoch  $3 attempt
UPDATE agent_turns SET attempt = $3
WHERE id = $1 AND epoch = $2 AND outcome IS NULL -- runs: see ARCHITECTURE.md
RETURNING id
