-- Delete a batch of tickets that expired some time ago.
-- $1 tickets  $2 seconds
DELETE FROM agent_stream_tickets
WHERE hash IN (SELECT hash FROM agent_stream_tickets WHERE expires_at < now() - make_interval(secs => $2) ORDER BY expires_at LIMIT $1)
RETURNING hash
