-- Keep what the last entry was that is left out.
-- $1 its seq  $2 time  $3 its mac  $4 signature
INSERT INTO agent_audit_anchors (seq, at, mac, signature) VALUES ($1, $2, $3, $4)
