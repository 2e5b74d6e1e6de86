-- Take a running turn over from whoever runs it: from now on that process can't write it any more.
-- No row: somebody else has done so, or it is over.
-- $1 turn_id  $2 the epoch that it was seen in  $3 own boot_id
UPDATE agent_turns
SET epoch = epoch + 1, boot_id = $3, lease_until = now() + interval '20 seconds'
WHERE id = $1 AND epoch = $2 AND outcome IS NULL -- runs: see ARCHITECTURE.md
RETURNING id, session_id, user_message_id, message_id, state, attempt, epoch, recoveries, stop_requested, last_seq, outcome
