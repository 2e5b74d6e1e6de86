-- Delete what was counted of tokens two days ago and before, a batch of it.
-- $1 limit
DELETE FROM agent_usage AS old
USING (
    SELECT day, owner FROM agent_usage
    WHERE day < (now() AT TIME ZONE 'UTC')::date - 1
    ORDER BY day, owner
    LIMIT $1
    FOR UPDATE SKIP LOCKED
) AS batch
WHERE old.day = batch.day AND old.owner = batch.owner
RETURNING old.owner
