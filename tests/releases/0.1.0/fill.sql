
CREATE FUNCTION an_id(prefix text, number bigint) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN prefix || '-' || lpad(to_hex(number), 32, '0');

ALTER TABLE agent_sessions SET (autovacuum_enabled = off);
ALTER TABLE agent_messages SET (autovacuum_enabled = off);
ALTER TABLE agent_turns SET (autovacuum_enabled = off);
ALTER TABLE agent_events SET (autovacuum_enabled = off);
ALTER TABLE agent_idempotency_keys SET (autovacuum_enabled = off);
ALTER TABLE agent_stream_tickets SET (autovacuum_enabled = off);
ALTER TABLE agent_usage SET (autovacuum_enabled = off);
ALTER TABLE agent_audit SET (autovacuum_enabled = off);
ALTER TABLE agent_audit_anchors SET (autovacuum_enabled = off);
ALTER TABLE agent_owners SET (autovacuum_enabled = off);

INSERT INTO agent_sessions (id, owner, character_id, updated_at)
SELECT an_id('sess', n), 'anonymous', 7, now() - make_interval(mins => n)
FROM generate_series(1, 2000) AS series (n);

INSERT INTO agent_messages (id, session_id, role, content)
SELECT an_id('msg', n), an_id('sess', CASE n % 10 WHEN 0 THEN 1 ELSE 1 + n % 2000 END), 'user', 'message ' || n
FROM generate_series(1, 100000) AS series (n);

INSERT INTO agent_turns
    (id, session_id, user_message_id, message_id, boot_id, state, last_seq, outcome, ended_at, swept)
SELECT an_id('turn', n), an_id('sess', 1 + n % 2000), an_id('msg', n), an_id('msg', n + 1), '00000000-0000-0000-0000-000000000001',
    'done', 50, '{}', now() - make_interval(mins => 5000 - n), n <= 4000
FROM generate_series(1, 5000) AS series (n);

INSERT INTO agent_events (turn_id, seq, data)
SELECT an_id('turn', n), seq, 'an event'
FROM generate_series(4001, 5000) AS turn (n), generate_series(1, 50) AS event (seq);

INSERT INTO agent_idempotency_keys (owner, key, fingerprint, session_id, turn_id, created_at)
SELECT 'anonymous', 'key-' || n, '', an_id('sess', n), an_id('turn', n),
    now() - interval '24 hours' + make_interval(secs => n - 50)
FROM generate_series(1, 5000) AS series (n);

INSERT INTO agent_stream_tickets (hash, session_id, expires_at)
SELECT sha256(n::text::bytea), an_id('sess', n), now() + make_interval(secs => n - 50)
FROM generate_series(1, 2000) AS series (n);

INSERT INTO agent_usage (day, owner, tokens)
SELECT (now() AT TIME ZONE 'UTC')::date - day, CASE WHEN n = 1 THEN 'anonymous' ELSE 'owner-' || n END, 1000
FROM generate_series(1, 2000) AS series (n), generate_series(0, 3) AS days (day);
INSERT INTO agent_audit (seq, at, owner, action, outcome, mac)
SELECT n, now() - make_interval(mins => 2000 - n), 'own-' || n, 'sign_in', 'ok', ''
FROM generate_series(1, 2000) AS series (n);

INSERT INTO agent_audit_anchors (seq, at, mac, signature)
SELECT n, now(), '', '' FROM generate_series(1, 2000) AS series (n);

INSERT INTO agent_owners (id, name)
SELECT 'own-' || n, 'name-' || n FROM generate_series(1, 2000) AS series (n);

SET default_statistics_target = 400;
ANALYZE;

INSERT INTO agent_turns (id, session_id, user_message_id, message_id, boot_id, slot_owner, slot)
SELECT an_id('turn', 5000 + n), an_id('sess', n), an_id('msg', n), an_id('msg', 100000 + n),
    CASE WHEN n <= 20 THEN uuid '00000000-0000-0000-0000-000000000001' ELSE uuid '00000000-0000-0000-0000-000000000002' END,
    CASE WHEN n <= 50 THEN 'anonymous' ELSE 'owner-' || n END, CASE WHEN n <= 50 THEN n ELSE 1 END
FROM generate_series(1, 500) AS series (n);

INSERT INTO agent_events (turn_id, seq, data)
SELECT an_id('turn', 5000 + n), seq, 'an event'
FROM generate_series(1, 500) AS turn (n), generate_series(1, 50) AS event (seq);
