-- Find the last entry that retention left out.
SELECT seq, at, mac, signature FROM agent_audit_anchors
WHERE seq > 0
ORDER BY seq DESC
LIMIT 1
