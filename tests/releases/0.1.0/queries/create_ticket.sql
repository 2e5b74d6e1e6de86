-- Make a ticket for the streams of a session of the owner's; no row: no such session.
-- $1 the ticket's SHA-256  $2 session_id  $3 owner  $4 seconds that it lives unused  $5 when its token ends, or null
INSERT INTO agent_stream_tickets (hash, session_id, token_expires_at, expires_at)
SELECT $1, id, $5, least(now() + make_interval(secs => $4), $5)
FROM agent_sessions
WHERE id = $2 AND owner = $3
RETURNING session_id
