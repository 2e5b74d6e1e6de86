-- Begin a turn: the user's message, the turn and its first event, the session's state and count, the idempotency key.
-- No row: no such session of this owner and character. A turn that runs there: unique violation of agent_turns_running;
-- a key that was used: of agent_idempotency_keys_pkey; a slot that another turn took just now: of agent_turns_slots.
-- A row without an id: a limit is reached (none of `turns`, or of `tokens`, is left) and nothing was written; `running`
-- is the turn that runs in the session. Of what is not limited `turns`, or `tokens`, is null.
-- $1 session_id  $2 owner  $3 character_id  $4 user message_id  $5 content  $6 turn_id  $7 answer's message_id
-- $8 boot_id  $9 the start event's JSON  $10 idempotency key or null  $11 its request's fingerprint
-- $12 whether the session is to be made  $13 turns at once or null  $14 tokens a day or null
WITH taken AS (
    SELECT slot FROM agent_turns
    WHERE slot_owner = $2 AND slot IS NOT NULL AND outcome IS NULL AND $13::integer IS NOT NULL
), quota AS (
    SELECT $13 - (SELECT count(*) FROM taken) AS turns,
        $14::bigint - coalesce((
            SELECT tokens FROM agent_usage
            WHERE day = (now() AT TIME ZONE 'UTC')::date AND owner = $2 AND $14 IS NOT NULL
        ), 0) AS tokens
), allowed AS (
    SELECT least(turns, tokens, 1) > 0 AS yes FROM quota
), made AS (
    INSERT INTO agent_sessions (id, owner, character_id, status, message_count)
    SELECT $1, $2, $3, 'thinking', 1 WHERE $12 AND (SELECT yes FROM allowed)
    RETURNING id
), found AS (
    UPDATE agent_sessions SET status = 'thinking', message_count = message_count + 1, updated_at = now()
    WHERE id = $1 AND owner = $2 AND character_id = $3 AND NOT $12 AND (SELECT yes FROM allowed)
    RETURNING id
), session AS (
    SELECT id FROM made UNION ALL SELECT id FROM found
), free AS (
    SELECT slot FROM generate_series(1, $13) AS slot
    WHERE slot NOT IN (SELECT slot FROM taken)
    ORDER BY random() -- so that those who look at once rarely take the same one
    LIMIT 1
), message AS (
    INSERT INTO agent_messages (id, session_id, role, content)
    SELECT $4, id, 'user', $5 FROM session
), turn AS (
    INSERT INTO agent_turns (id, session_id, user_message_id, message_id, boot_id, slot_owner, slot)
    SELECT $6, id, $4, $7, $8, CASE WHEN $13 IS NOT NULL THEN $2 END, (SELECT slot FROM free) FROM session
    RETURNING id
), key AS (
    INSERT INTO agent_idempotency_keys (owner, key, fingerprint, session_id, turn_id)
    SELECT $2, $10, $11, id, $6 FROM session WHERE $10::text IS NOT NULL
), event AS (
    INSERT INTO agent_events (turn_id, seq, data)
    SELECT id, 1, $9 FROM turn
)
SELECT id, turns - 1 AS turns, tokens, NULL AS running FROM turn CROSS JOIN quota
UNION ALL
SELECT NULL, turns, tokens, (
        SELECT id FROM (SELECT id, outcome FROM agent_turns WHERE session_id = $1 ORDER BY seq DESC LIMIT 1) AS latest
        WHERE outcome IS NULL
    )
FROM quota
WHERE NOT (SELECT yes FROM allowed)
    AND ($12 OR EXISTS (SELECT FROM agent_sessions WHERE id = $1 AND owner = $2 AND character_id = $3))
