-- The audit: who did what, and what was refused; never what was said. And what goes with a deleted session.

-- In the order of begin_turn, which otherwise would wait for the one and be waited for with the other.
LOCK TABLE agent_sessions IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE agent_idempotency_keys IN ACCESS EXCLUSIVE MODE;

CREATE TABLE agent_audit (
    seq        bigint PRIMARY KEY CHECK (seq BETWEEN 1 AND 1::bigint << 62), -- contiguous
    at         timestamptz NOT NULL CHECK (at BETWEEN '2000-01-01' AND '9999-01-01'),
    owner      text COLLATE "C", -- an id, whose name is in agent_owners; null: nobody that is known
    action     text NOT NULL,
    object     text,
    request_id text,
    address    text,
    outcome    text NOT NULL, -- ok, or an error's code
    mac        bytea NOT NULL -- of all this and the entry before: see chatd/chain.py
);

CREATE FUNCTION agent_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'agent_audit can only be appended to' USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER agent_audit_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON agent_audit
    FOR EACH STATEMENT EXECUTE FUNCTION agent_audit_refuse();
ALTER TABLE agent_audit ENABLE ALWAYS TRIGGER agent_audit_append_only;

-- What is left out by retention, by the table's owner alone: nobody else may disable a trigger.
CREATE FUNCTION agent_audit_prune(last bigint) RETURNS bigint LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    deleted bigint;
BEGIN
    ALTER TABLE agent_audit DISABLE TRIGGER agent_audit_append_only; -- nobody else appends until this is committed
    DELETE FROM agent_audit WHERE seq <= last;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    ALTER TABLE agent_audit ENABLE ALWAYS TRIGGER agent_audit_append_only;
    RETURN deleted;
END $$;

-- The last entry, signed, so that entries can't be missing at the end. Whoever appends moves it: one at a time.
CREATE TABLE agent_audit_head (
    id        integer PRIMARY KEY CHECK (id = 1),
    seq       bigint NOT NULL,
    mac       bytea NOT NULL,
    signature bytea NOT NULL
);
INSERT INTO agent_audit_head (id, seq, mac, signature) VALUES (1, 0, '', '');

-- The last entry of each that retention left out, signed.
CREATE TABLE agent_audit_anchors (
    seq       bigint PRIMARY KEY,
    at        timestamptz NOT NULL,
    mac       bytea NOT NULL,
    signature bytea NOT NULL
);

-- Erasing a person deletes the name; the audit keeps the id.
CREATE TABLE agent_owners (
    id   text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL
);
CREATE INDEX agent_owners_name ON agent_owners (name);

-- The key of a deleted session stays, since it does not become new again, and nothing with it: null.
ALTER TABLE agent_idempotency_keys
    ALTER COLUMN fingerprint DROP NOT NULL,
    ALTER COLUMN session_id DROP NOT NULL,
    ALTER COLUMN turn_id DROP NOT NULL;
CREATE INDEX agent_idempotency_keys_session ON agent_idempotency_keys (session_id); -- of a day's keys: a short lock

CREATE FUNCTION agent_sessions_strip_keys() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE agent_idempotency_keys AS keys SET fingerprint = NULL, session_id = NULL, turn_id = NULL
    FROM deleted WHERE keys.session_id = deleted.id;
    RETURN NULL;
END $$;

CREATE TRIGGER agent_sessions_strip_keys
    AFTER DELETE ON agent_sessions
    REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION agent_sessions_strip_keys();
