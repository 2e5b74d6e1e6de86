-- What an EventSource shows in place of a token: kept as a hash, for the streams of one session.

CREATE TABLE agent_stream_tickets (
    hash             bytea PRIMARY KEY,
    session_id       text COLLATE "C" NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    token_expires_at timestamptz,          -- of the token that it was made with; null: never
    expires_at       timestamptz NOT NULL  -- moves with each use, up to that
);

CREATE INDEX agent_stream_tickets_session ON agent_stream_tickets (session_id);
CREATE INDEX agent_stream_tickets_age ON agent_stream_tickets (expires_at);
