-- List the audit's entries, latest first, with the owners' names, where they are known.
-- $1 only those before this seq, or null  $2 limit
SELECT seq, at, coalesce((SELECT name FROM agent_owners WHERE id = owner), owner) AS owner, owner AS owner_id,
    action, object, request_id, address, outcome
FROM agent_audit
WHERE seq < coalesce($1::bigint, 9223372036854775807)
ORDER BY seq DESC
LIMIT $2
