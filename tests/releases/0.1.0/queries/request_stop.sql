-- Ask whoever runs a turn to stop it.
-- $1 turn_id
UPDATE agent_turns SET stop_requested = true
WHERE id = $1 AND outcome IS NULL -- runs: see ARCHITECTURE.md
RETURNING id
