-- Find the latest turn of a session of the owner's: if one runs, it is this one. Nulls: it has none; no row: no session.
-- $1 session_id  $2 owner
SELECT turn.id, turn.session_id, user_message_id, message_id, state, attempt, epoch, recoveries, stop_requested,
    last_seq, outcome
FROM agent_sessions
LEFT JOIN LATERAL (
    SELECT * FROM agent_turns WHERE session_id = agent_sessions.id ORDER BY seq DESC LIMIT 1
) AS turn ON true
WHERE agent_sessions.id = $1 AND owner = $2
