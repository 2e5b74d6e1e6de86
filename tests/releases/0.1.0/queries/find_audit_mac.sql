-- Find the mac of an entry of the audit.
-- $1 its seq
SELECT mac FROM agent_audit WHERE seq = $1
