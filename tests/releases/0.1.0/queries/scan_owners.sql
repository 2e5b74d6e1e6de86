-- List the names of the audit's owners with their ids, in order of these.
-- $1 only those after this id  $2 limit
SELECT id, name
FROM agent_owners
WHERE id > $1
ORDER BY id
LIMIT $2
