-- Append the events of many turns, each checked against its turn's epoch under a lock of the turn's row.
-- Ids are locked in order, so that two writers of several turns can't wait for each other.
-- One that is there already: unique violation of agent_events_pkey, and nothing is appended.
-- $1 turn_ids  $2 epochs  $3 seqs  $4 the events' JSON; four arrays of one length
WITH event AS (
    SELECT turn_id, epoch, seq, data
    FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::text[]) AS event (turn_id, epoch, seq, data)
), turn AS (
    SELECT id, epoch FROM agent_turns
    WHERE id = ANY ($1::text[]) AND outcome IS NULL -- runs: see ARCHITECTURE.md
    ORDER BY id
    FOR SHARE
)
INSERT INTO agent_events (turn_id, seq, data)
SELECT event.turn_id, event.seq, event.data
FROM event JOIN turn ON turn.id = event.turn_id AND turn.epoch = event.epoch
