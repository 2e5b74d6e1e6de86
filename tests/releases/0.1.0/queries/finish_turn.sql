-- End a turn: its last events, its state, the answer (where $7 is not null) and the session's state and count.
-- The session's row is locked first, as in begin_turn, so that the two can't wait for each other.
-- No row: the turn is another process's now, or over.
-- $1 turn_id  $2 epoch  $3 session_id  $4 state  $5 the last event's JSON  $6 its seq
-- $7 text  $8 message status  $9 content_blocks  $10 model  $11 stop_reason  $12 token_usage
-- $13 upstream_id  $14 first_content_at  $15 seqs and $16 JSON of the events to append, the last one's among them
-- $17 tokens to count for the owner, or null
WITH locked AS (
    SELECT id, owner FROM agent_sessions WHERE id = $3 FOR NO KEY UPDATE
), turn AS (
    UPDATE agent_turns SET state = $4, outcome = $5, last_seq = $6, upstream_id = $13, first_content_at = $14,
        ended_at = now()
    FROM locked
    WHERE agent_turns.id = $1 AND epoch = $2 AND outcome IS NULL AND session_id = locked.id
    RETURNING agent_turns.id, session_id, message_id, locked.owner
), event AS (
    INSERT INTO agent_events (turn_id, seq, data)
    SELECT turn.id, event.seq, event.data
    FROM turn CROSS JOIN unnest($15::bigint[], $16::text[]) AS event (seq, data)
), message AS (
    INSERT INTO agent_messages
        (id, session_id, role, content, status, content_blocks, model, stop_reason, token_usage)
    SELECT message_id, session_id, 'assistant', $7, $8, $9, $10, $11, $12 FROM turn WHERE $7::text IS NOT NULL
    RETURNING session_id
), session AS (
    UPDATE agent_sessions
    SET status = CASE WHEN $4 = 'failed' THEN 'error' ELSE 'idle' END,
        message_count = message_count + (SELECT count(*) FROM message),
        updated_at = now()
    FROM turn
    WHERE agent_sessions.id = turn.session_id
), usage AS (
    INSERT INTO agent_usage (day, owner, tokens)
    SELECT (now() AT TIME ZONE 'UTC')::date, owner, $17 FROM turn WHERE $17::bigint > 0
    ON CONFLICT (day, owner) DO UPDATE SET tokens = agent_usage.tokens + excluded.tokens
)
SELECT id FROM turn
