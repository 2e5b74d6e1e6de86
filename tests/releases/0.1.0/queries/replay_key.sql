-- Find the turn of an idempotency key, and note that somebody is told of it: from now on it can't be undone.
-- $1 owner  $2 key
UPDATE agent_idempotency_keys SET replayed = true
WHERE owner = $1 AND key = $2
RETURNING fingerprint, session_id, turn_id
