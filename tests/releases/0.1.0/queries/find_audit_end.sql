-- Find the last of the entries at the audit's beginning that are older than a time; no row: there are none.
-- $1 the time
SELECT seq, mac FROM agent_audit
WHERE seq < coalesce(
    (SELECT seq FROM agent_audit WHERE seq > 0 AND at >= $1 ORDER BY seq LIMIT 1), 9223372036854775807
)
ORDER BY seq DESC
LIMIT 1
