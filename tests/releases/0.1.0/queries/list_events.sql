-- List the events of a turn after a number, in order.
-- $1 turn_id  $2 seq  $3 limit
SELECT seq, data FROM agent_events
WHERE turn_id = $1 AND seq > $2
ORDER BY seq
LIMIT $3
