-- Find which of these very events are there.
-- $1 turn_ids  $2 seqs  $3 the events' JSON; three arrays of one length
SELECT event.turn_id, event.seq
FROM unnest($1::text[], $2::bigint[], $3::text[]) AS event (turn_id, seq, data)
JOIN agent_events AS stored ON stored.turn_id = event.turn_id AND stored.seq = event.seq
WHERE stored.data = event.data
