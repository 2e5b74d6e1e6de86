-- List the processes that are said to run turns now, this one apart.
-- $1 own boot_id
SELECT DISTINCT boot_id FROM agent_turns
WHERE state = 'running' AND boot_id <> $1
