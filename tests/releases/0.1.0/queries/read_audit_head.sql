-- Read the audit's head, and the number of the last entry that is there.
SELECT seq, mac, signature, coalesce((SELECT seq FROM agent_audit WHERE seq > 0 ORDER BY seq DESC LIMIT 1), 0) AS last
FROM agent_audit_head
WHERE id = 1
