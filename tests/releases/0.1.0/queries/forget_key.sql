-- Free the idempotency key of a turn that is to be undone, unless somebody was told of the turn by it.
-- No row: there is no such key.
-- $1 owner  $2 key  $3 turn_id
WITH mine AS (
    SELECT owner, key, replayed FROM agent_idempotency_keys
    WHERE owner = $1 AND key = $2 AND turn_id = $3
    FOR UPDATE
), forgotten AS (
    DELETE FROM agent_idempotency_keys AS keys USING mine
    WHERE keys.owner = mine.owner AND keys.key = mine.key AND NOT mine.replayed
)
SELECT replayed FROM mine
