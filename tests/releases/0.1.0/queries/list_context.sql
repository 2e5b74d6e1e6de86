-- List messages for the model, latest first, down to where the session's context starts; with the latest, the session's
-- system prompt, too, behind them: its first message, where that is one.
-- The messages are found for a row of the session, whose context_start the planner does not know: it would take so few
-- messages to come after that, that it would rather read and sort them all than go back from the latest one.
-- $1 session_id  $2 only those before this seq, or null  $3 limit
SELECT message.seq, message.role, message.content
FROM agent_sessions AS session CROSS JOIN LATERAL (
    (
        SELECT seq, role, content
        FROM agent_messages
        WHERE session_id = session.id
            AND seq < coalesce($2, 9223372036854775807)
            AND seq >= session.context_start
            AND role <> 'system'
        ORDER BY seq DESC
        LIMIT $3
    )
    UNION ALL
    SELECT seq, role, content
    FROM (SELECT seq, role, content FROM agent_messages WHERE session_id = session.id ORDER BY seq LIMIT 1) AS first
    WHERE role = 'system' AND $2::bigint IS NULL
) AS message
WHERE session.id = $1
ORDER BY message.seq DESC
