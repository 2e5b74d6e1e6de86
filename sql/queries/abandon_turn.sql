-- Undo begin_turn, for a client that was told that nothing was written. The session's row is locked first, as there.
-- $1 turn_id  $2 session_id
WITH locked AS (
    SELECT id FROM agent_sessions WHERE id = $2 FOR NO KEY UPDATE
), turn AS (
    DELETE FROM agent_turns USING locked
    WHERE agent_turns.id = $1 AND session_id = locked.id
    RETURNING session_id, user_message_id
), message AS (
    DELETE FROM agent_messages USING turn WHERE agent_messages.id = turn.user_message_id
)
UPDATE agent_sessions SET status = 'idle', message_count = message_count - 1
FROM turn
WHERE agent_sessions.id = turn.session_id
RETURNING agent_sessions.id
