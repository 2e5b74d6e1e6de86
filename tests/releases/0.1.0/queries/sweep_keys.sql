-- Delete idempotency keys that are older than a day, a batch of them.
-- $1 limit
DELETE FROM agent_idempotency_keys AS keys
USING (
    SELECT owner, key FROM agent_idempotency_keys
    WHERE created_at < now() - interval '24 hours'
    ORDER BY created_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
) AS old
WHERE keys.owner = old.owner AND keys.key = old.key
RETURNING keys.key
