-- Take over running turns that nobody runs: the process is known to be dead, or the lease has run out, or this process
-- has claimed and then forgotten them (the claim's answer was lost, say), so that nobody has renewed their leases lately.
-- Counts the takeovers in a row that brought no new event.
-- $1 own boot_id  $2 boot_ids known to be dead  $3 limit  $4 turn_ids that this process runs or is taking over
WITH orphan AS (
    SELECT id, (SELECT coalesce(max(seq), 0) FROM agent_events WHERE turn_id = agent_turns.id) AS last_event
    FROM agent_turns
    WHERE state = 'running' AND (boot_id = ANY ($2::uuid[]) OR lease_until < now()
            OR boot_id = $1 AND lease_until < now() + interval '10 seconds')
        AND id <> ALL ($4::text[])
    ORDER BY id
    LIMIT $3
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE agent_turns
SET epoch = epoch + 1, boot_id = $1, lease_until = now() + interval '20 seconds', recovery_seq = orphan.last_event,
    recoveries = CASE WHEN recovery_seq = orphan.last_event THEN recoveries + 1 ELSE 1 END
FROM orphan
WHERE agent_turns.id = orphan.id
RETURNING agent_turns.id, session_id, user_message_id, message_id, state, attempt, epoch, recoveries, stop_requested,
    last_seq, outcome
