-- Find the latest turn of a session: if one runs, it is this one.
-- $1 session_id
SELECT id, session_id, user_message_id, message_id, state, attempt, epoch, recoveries, stop_requested, last_seq, outcome
FROM agent_turns
WHERE session_id = $1
ORDER BY seq DESC
LIMIT 1
