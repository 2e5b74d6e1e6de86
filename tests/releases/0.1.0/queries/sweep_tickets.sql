-- Delete a batch of tickets that have expired.
-- $1 tickets
DELETE FROM agent_stream_tickets
WHERE hash IN (SELECT hash FROM agent_stream_tickets WHERE expires_at < now() ORDER BY expires_at LIMIT $1)
RETURNING hash
