-- Delete events of turns that ended long ago, a batch of them; a turn without any left is swept.
-- $1 seconds since the end  $2 turns at most  $3 events at most
WITH old AS (
    SELECT id FROM agent_turns
    WHERE ended_at IS NOT NULL AND NOT swept AND ended_at < now() - make_interval(secs => $1)
    ORDER BY ended_at
    LIMIT $2
    FOR NO KEY UPDATE SKIP LOCKED
), doomed AS (
    SELECT turn_id, seq FROM agent_events WHERE turn_id = ANY (SELECT id FROM old)
    ORDER BY turn_id, seq -- what is left of a turn is whole to its end
    LIMIT $3
), deleted AS (
    DELETE FROM agent_events AS events USING doomed
    WHERE events.turn_id = doomed.turn_id AND events.seq = doomed.seq
    RETURNING events.turn_id
), swept AS (
    UPDATE agent_turns SET swept = true FROM old
    WHERE agent_turns.id = old.id AND (SELECT count(*) FROM doomed) < $3
    RETURNING agent_turns.id
)
SELECT count(*) AS turns FROM old
