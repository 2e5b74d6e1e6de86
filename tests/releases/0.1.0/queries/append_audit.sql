-- Append entries to the audit, with the names of their owners, and move its head: if that is still where it was seen.
-- Nothing is appended: it is not.
-- $1 seq and $2 mac of the head as it was seen  $3 seq, $4 mac and $5 signature of the head to come
-- $6 ids and $7 names of owners; then the entries, an array a column: $8 seq  $9 at  $10 owner's id  $11 action
-- $12 object  $13 request id  $14 address  $15 outcome  $16 mac
WITH head AS (
    UPDATE agent_audit_head SET seq = $3, mac = $4, signature = $5
    WHERE id = 1 AND seq = $1 AND mac = $2
    RETURNING id
), named AS (
    INSERT INTO agent_owners (id, name)
    SELECT owner.id, owner.name FROM head CROSS JOIN unnest($6::text[], $7::text[]) AS owner (id, name)
    ON CONFLICT (id) DO NOTHING
)
INSERT INTO agent_audit (seq, at, owner, action, object, request_id, address, outcome, mac)
SELECT entry.seq, entry.at, entry.owner, action, object, request_id, address, outcome, entry.mac
FROM head CROSS JOIN unnest(
    $8::bigint[], $9::timestamptz[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
    $16::bytea[]
) AS entry (seq, at, owner, action, object, request_id, address, outcome, mac)
