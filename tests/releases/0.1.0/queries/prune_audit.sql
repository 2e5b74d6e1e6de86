-- Delete the audit's entries up to one of them; only the table's owner may.
-- $1 that one's seq
SELECT agent_audit_prune($1) AS deleted
