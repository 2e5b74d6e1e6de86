-- Find the system prompt of a session: its first message, where that is one.
-- $1 session_id
SELECT first.content
FROM (SELECT role, content FROM agent_messages WHERE session_id = $1 ORDER BY seq LIMIT 1) AS first
WHERE first.role = 'system'
