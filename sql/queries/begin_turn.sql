-- Begin a turn: the user's message, the turn and its first event, the session's state and count, the idempotency key.
-- No row: no such session of this owner and character. A turn that runs there: unique violation of agent_turns_running;
-- a key that was used: of agent_idempotency_keys_pkey.
-- $1 session_id  $2 owner  $3 character_id  $4 user message_id  $5 content  $6 turn_id  $7 answer's message_id
-- $8 boot_id  $9 the start event's JSON  $10 idempotency key or null  $11 its request's fingerprint
-- $12 whether the session is to be made
WITH made AS (
    INSERT INTO agent_sessions (id, owner, character_id, status, message_count)
    SELECT $1, $2, $3, 'thinking', 1 WHERE $12
    RETURNING id
), found AS (
    UPDATE agent_sessions SET status = 'thinking', message_count = message_count + 1, updated_at = now()
    WHERE id = $1 AND owner = $2 AND character_id = $3 AND NOT $12
    RETURNING id
), session AS (
    SELECT id FROM made UNION ALL SELECT id FROM found
), message AS (
    INSERT INTO agent_messages (id, session_id, role, content)
    SELECT $4, id, 'user', $5 FROM session
), turn AS (
    INSERT INTO agent_turns (id, session_id, user_message_id, message_id, boot_id)
    SELECT $6, id, $4, $7, $8 FROM session
    RETURNING id
), key AS (
    INSERT INTO agent_idempotency_keys (owner, key, fingerprint, session_id, turn_id)
    SELECT $2, $10, $11, id, $6 FROM session WHERE $10::text IS NOT NULL
), event AS (
    INSERT INTO agent_events (turn_id, seq, data)
    SELECT id, 1, $9 FROM turn
)
SELECT id FROM turn
