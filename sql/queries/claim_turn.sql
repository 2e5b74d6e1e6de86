-- Take a running turn over from whoever runs it: from now on that process can't write it any more.
-- $1 turn_id  $2 own boot_id
UPDATE agent_turns
SET epoch = epoch + 1, boot_id = $2, lease_until = now() + interval '20 seconds'
WHERE id = $1 AND state = 'running'
RETURNING id, session_id, user_message_id, message_id, state, attempt, epoch, recoveries, stop_requested, last_seq, outcome
