-- List messages for the model, latest first, down to where the session's context starts; with the latest, the session's
-- system prompt, too: its first message, where that is one.
-- $1 session_id  $2 only those before this seq, or null  $3 limit
(
    SELECT seq, role, content
    FROM agent_messages
    WHERE session_id = $1
        AND seq < coalesce($2, 9223372036854775807)
        AND seq >= (SELECT context_start FROM agent_sessions WHERE id = $1)
        AND role <> 'system'
    ORDER BY seq DESC
    LIMIT $3
)
UNION ALL
SELECT seq, role, content
FROM (SELECT seq, role, content FROM agent_messages WHERE session_id = $1 ORDER BY seq LIMIT 1) AS first
WHERE role = 'system' AND $2::bigint IS NULL
