-- Find a turn by id within its session.
-- $1 session_id  $2 turn_id
SELECT id, session_id, user_message_id, message_id, state, attempt, epoch, recoveries, stop_requested, last_seq, outcome
FROM agent_turns
WHERE id = $2 AND session_id = $1
