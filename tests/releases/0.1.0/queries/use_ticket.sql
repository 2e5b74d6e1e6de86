-- Find whose streams of a session a ticket opens, and have it live on.
-- $1 the ticket's SHA-256  $2 session_id  $3 seconds that it lives unused  $4 for how long it may have expired
UPDATE agent_stream_tickets AS ticket
SET expires_at = least(now() + make_interval(secs => $3), token_expires_at)
FROM agent_sessions AS session
WHERE hash = $1 AND session_id = $2 AND session.id = session_id AND expires_at > now() - make_interval(secs => $4)
    AND coalesce(token_expires_at > now(), true)
RETURNING owner, token_expires_at
