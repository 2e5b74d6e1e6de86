-- List the audit's entries as they are chained, in order.
-- $1 only those after this seq  $2 limit
SELECT seq, at, owner, action, object, request_id, address, outcome, mac
FROM agent_audit
WHERE seq > $1
ORDER BY seq
LIMIT $2
