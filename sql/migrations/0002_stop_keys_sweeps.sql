-- Stopping a turn from any process, idempotency keys, and the sweeping of what is no longer needed.

ALTER TABLE agent_turns
    ADD COLUMN stop_requested boolean NOT NULL DEFAULT false, -- whoever runs it is to stop it
    ADD COLUMN swept boolean NOT NULL DEFAULT false;          -- its events have been deleted

-- What is still to be swept, and nothing else.
CREATE INDEX agent_turns_unswept ON agent_turns (ended_at) WHERE ended_at IS NOT NULL AND NOT swept;

CREATE TABLE agent_idempotency_keys (
    owner       text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,            -- of the request: the same key with another one is a mistake
    session_id  text COLLATE "C" NOT NULL, -- no foreign key: a deleted session does not make the key new again
    turn_id     text COLLATE "C" NOT NULL,
    replayed    boolean NOT NULL DEFAULT false, -- somebody was told of the turn by this key: it can't be undone
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, key)
);

CREATE INDEX agent_idempotency_keys_age ON agent_idempotency_keys (created_at);
