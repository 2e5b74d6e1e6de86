-- Delete what was counted of an owner's tokens; no more days than these are kept, and by day goes the index.
-- $1 owner
DELETE FROM agent_usage
WHERE day = ANY (ARRAY(SELECT (now() AT TIME ZONE 'UTC')::date - n FROM generate_series(-1, 7) AS days (n)))
    AND owner = $1
RETURNING day
