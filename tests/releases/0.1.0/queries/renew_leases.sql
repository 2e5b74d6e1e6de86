-- Renew the leases of turns that this process runs; ids in order, as in append_events.
-- $1 turn_ids  $2 boot_id
UPDATE agent_turns SET lease_until = now() + interval '20 seconds'
FROM (
    SELECT id FROM agent_turns
    WHERE id = ANY ($1::text[]) AND boot_id = $2 AND outcome IS NULL -- runs: see ARCHITECTURE.md
    ORDER BY id
    FOR NO KEY UPDATE
) AS mine
WHERE agent_turns.id = mine.id
RETURNING agent_turns.id, stop_requested
