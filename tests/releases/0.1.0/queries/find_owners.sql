-- Find the names under which there is anything of a person: one name, or all that begin with it and a colon.
-- $1 the name  $2 the same, or the end of those that begin with it
SELECT owner FROM agent_sessions
WHERE owner BETWEEN $1 AND $2 AND (owner = $1 OR starts_with(owner, $1 || ':'))
UNION
SELECT owner FROM agent_idempotency_keys
WHERE owner BETWEEN $1 AND $2 AND (owner = $1 OR starts_with(owner, $1 || ':'))
UNION
SELECT owner FROM agent_usage
WHERE day = ANY (ARRAY(SELECT (now() AT TIME ZONE 'UTC')::date - n FROM generate_series(-1, 7) AS days (n)))
    AND owner BETWEEN $1 AND $2 AND (owner = $1 OR starts_with(owner, $1 || ':'))
UNION
SELECT name FROM agent_owners
WHERE name BETWEEN $1 AND $2 AND (name = $1 OR starts_with(name, $1 || ':'))
