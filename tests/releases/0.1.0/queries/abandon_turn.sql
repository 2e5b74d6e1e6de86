-- Undo begin_turn, for a client that was told that nothing was written. The session's row is locked, by lock_session.
-- $1 turn_id
WITH turn AS (
    DELETE FROM agent_turns WHERE id = $1 AND outcome IS NULL AND epoch = 1
    RETURNING session_id, user_message_id
), message AS (
    DELETE FROM agent_messages USING turn WHERE agent_messages.id = turn.user_message_id
)
UPDATE agent_sessions SET status = 'idle', message_count = message_count - 1
FROM turn
WHERE agent_sessions.id = turn.session_id
RETURNING agent_sessions.id
