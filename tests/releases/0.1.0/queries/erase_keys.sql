-- Delete the owner's idempotency keys, a batch of them.
-- $1 owner  $2 limit
DELETE FROM agent_idempotency_keys
WHERE owner = $1 AND key = ANY (ARRAY(
    SELECT key FROM agent_idempotency_keys WHERE owner = $1 ORDER BY key LIMIT $2
))
RETURNING key
