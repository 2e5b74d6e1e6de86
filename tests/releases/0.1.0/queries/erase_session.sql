-- Delete one of the owner's sessions, with all that is in it; no row: there is none left.
-- One at a time: a statement that waits for several running turns may meet append_events, which does so, too.
-- $1 owner
DELETE FROM agent_sessions AS sessions
USING (
    SELECT id FROM agent_sessions WHERE owner = $1 ORDER BY updated_at, id LIMIT 1 FOR UPDATE
) AS oldest
WHERE sessions.id = oldest.id
RETURNING sessions.id
