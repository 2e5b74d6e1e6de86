-- Sessions, their messages, the turns that answer them, and what each turn published.
-- Ids are made by the server: a prefix and 32 hex digits, time-ordered, compared byte by byte.

CREATE TABLE agent_sessions (
    id            text COLLATE "C" PRIMARY KEY CHECK (id ~ '^sess-[0-9a-f]{32}$'),
    owner         text COLLATE "C" NOT NULL,
    character_id  bigint NOT NULL CHECK (character_id >= 1),
    title         text,
    status        text NOT NULL DEFAULT 'idle' CHECK (status IN ('idle', 'thinking', 'executing', 'error')),
    message_count bigint NOT NULL DEFAULT 0,
    context_start bigint NOT NULL DEFAULT 0, -- the oldest agent_messages.seq that is still sent upstream
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX agent_sessions_activity ON agent_sessions (owner, updated_at DESC, id DESC);

CREATE TABLE agent_messages (
    id             text COLLATE "C" PRIMARY KEY CHECK (id ~ '^msg-[0-9a-f]{32}$'),
    session_id     text COLLATE "C" NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    seq            bigint GENERATED ALWAYS AS IDENTITY, -- the order: created_at may tie
    role           text NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
    content        text NOT NULL,
    content_blocks jsonb, -- NULL: one text block that holds content
    status         text NOT NULL DEFAULT 'complete' CHECK (status IN ('complete', 'stopped', 'interrupted')),
    model          text,
    stop_reason    text,
    token_usage    jsonb, -- NULL: not known
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX agent_messages_order ON agent_messages (session_id, seq);

CREATE TABLE agent_turns (
    id               text COLLATE "C" PRIMARY KEY CHECK (id ~ '^turn-[0-9a-f]{32}$'),
    session_id       text COLLATE "C" NOT NULL REFERENCES agent_sessions (id) ON DELETE CASCADE,
    seq              bigint GENERATED ALWAYS AS IDENTITY,
    user_message_id  text COLLATE "C" NOT NULL,
    message_id       text COLLATE "C" NOT NULL, -- the answer's id, given out before the answer exists
    state            text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'stopped', 'failed')),
    attempt          integer NOT NULL DEFAULT 1, -- requests upstream, recorded before each is sent
    epoch            integer NOT NULL DEFAULT 1, -- grows with each process that takes the turn over
    recoveries       integer NOT NULL DEFAULT 0, -- takeovers in a row without a new event,
    recovery_seq     bigint NOT NULL DEFAULT 0,  -- which is to say one after this
    boot_id          uuid NOT NULL,              -- the process that runs it
    lease_until      timestamptz NOT NULL DEFAULT now() + interval '20 seconds',
    last_seq         bigint,                     -- the number of its last event, once ended
    outcome          text,                       -- that event's JSON: it outlives the swept events
    upstream_id      text,                       -- the model server's request id
    started_at       timestamptz NOT NULL DEFAULT now(),
    first_content_at timestamptz,
    ended_at         timestamptz,
    CONSTRAINT ended_turns_have_an_outcome
        CHECK ((state = 'running') = (outcome IS NULL) AND (outcome IS NULL) = (last_seq IS NULL))
);

-- One running turn in a session, decided here and nowhere else.
CREATE UNIQUE INDEX agent_turns_running ON agent_turns (session_id) WHERE state = 'running';
CREATE INDEX agent_turns_order ON agent_turns (session_id, seq DESC);
-- Recovery looks at running turns only: few, however many have ended.
-- lease_until stays out of it, so that renewing a lease touches no index.
CREATE INDEX agent_turns_boot ON agent_turns (boot_id) WHERE state = 'running';

CREATE TABLE agent_events (
    turn_id text COLLATE "C" NOT NULL REFERENCES agent_turns (id) ON DELETE CASCADE,
    seq     bigint NOT NULL,
    data    text NOT NULL, -- the frame's JSON as it goes out, byte for byte
    PRIMARY KEY (turn_id, seq)
);
