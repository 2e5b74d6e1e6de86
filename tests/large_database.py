"""A large database, where many turns have begun since the planner's statistics were made; arguments for every query."""

import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

SESSIONS = 2_000
MESSAGES = 100_000  # every tenth is in session 1
ENDED = 5_000  # turns; each runs for a minute, and the last one ended just now
KEPT = 1_000  # the latest of these: the events of the others were swept
EVENTS = 50  # of each turn
RUNNING = 500  # turns, each in a session of its own
KEYS = 5_000
OLD_KEYS = 50
TICKETS = 2_000
OWNERS = 2_000  # who used tokens on each of four days
SLOTS = 50  # of the running turns: the owner's; each of the others is another one's
ENTRIES = 2_000
STATISTICS = 400  # of 300 times as many rows: of all, not of some at random

OWNER = "anonymous"
DEAD, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
FILL = f"""
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
SELECT an_id('sess', n), '{OWNER}', 7, now() - make_interval(mins => n)
FROM generate_series(1, {SESSIONS}) AS series (n);

INSERT INTO agent_messages (id, session_id, role, content)
SELECT an_id('msg', n), an_id('sess', CASE n % 10 WHEN 0 THEN 1 ELSE 1 + n % {SESSIONS} END), 'user', 'message ' || n
FROM generate_series(1, {MESSAGES}) AS series (n);

INSERT INTO agent_turns
    (id, session_id, user_message_id, message_id, boot_id, state, last_seq, outcome, ended_at, swept)
SELECT an_id('turn', n), an_id('sess', 1 + n % {SESSIONS}), an_id('msg', n), an_id('msg', n + 1), '{DEAD}',
    'done', {EVENTS}, '{{}}', now() - make_interval(mins => {ENDED} - n), n <= {ENDED - KEPT}
FROM generate_series(1, {ENDED}) AS series (n);

INSERT INTO agent_events (turn_id, seq, data)
SELECT an_id('turn', n), seq, 'an event'
FROM generate_series({ENDED - KEPT + 1}, {ENDED}) AS turn (n), generate_series(1, {EVENTS}) AS event (seq);

INSERT INTO agent_idempotency_keys (owner, key, fingerprint, session_id, turn_id, created_at)
SELECT '{OWNER}', 'key-' || n, '', an_id('sess', n), an_id('turn', n),
    now() - interval '24 hours' + make_interval(secs => n - {OLD_KEYS})
FROM generate_series(1, {KEYS}) AS series (n);

INSERT INTO agent_stream_tickets (hash, session_id, expires_at)
SELECT sha256(n::text::bytea), an_id('sess', n), now() + make_interval(secs => n - {OLD_KEYS})
FROM generate_series(1, {TICKETS}) AS series (n);

INSERT INTO agent_usage (day, owner, tokens)
SELECT (now() AT TIME ZONE 'UTC')::date - day, CASE WHEN n = 1 THEN '{OWNER}' ELSE 'owner-' || n END, 1000
FROM generate_series(1, {OWNERS}) AS series (n), generate_series(0, 3) AS days (day);
INSERT INTO agent_audit (seq, at, owner, action, outcome, mac)
SELECT n, now() - make_interval(mins => {ENTRIES} - n), 'own-' || n, 'sign_in', 'ok', ''
FROM generate_series(1, {ENTRIES}) AS series (n);

INSERT INTO agent_audit_anchors (seq, at, mac, signature)
SELECT n, now(), '', '' FROM generate_series(1, {ENTRIES}) AS series (n);

INSERT INTO agent_owners (id, name)
SELECT 'own-' || n, 'name-' || n FROM generate_series(1, {ENTRIES}) AS series (n);

SET default_statistics_target = {STATISTICS};
ANALYZE;

INSERT INTO agent_turns (id, session_id, user_message_id, message_id, boot_id, slot_owner, slot)
SELECT an_id('turn', {ENDED} + n), an_id('sess', n), an_id('msg', n), an_id('msg', {MESSAGES} + n),
    CASE WHEN n <= 20 THEN uuid '{DEAD}' ELSE uuid '{OTHER}' END,
    CASE WHEN n <= {SLOTS} THEN '{OWNER}' ELSE 'owner-' || n END, CASE WHEN n <= {SLOTS} THEN n ELSE 1 END
FROM generate_series(1, {RUNNING}) AS series (n);

INSERT INTO agent_events (turn_id, seq, data)
SELECT an_id('turn', {ENDED} + n), seq, 'an event'
FROM generate_series(1, {RUNNING}) AS turn (n), generate_series(1, {EVENTS}) AS event (seq);
"""


def hash_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def an_id(prefix: str, number: int) -> str:
    return f"{prefix}-{number:032x}"


SESSION, RUNNING_SESSION, IDLE_SESSION = an_id("sess", 1), an_id("sess", 7), an_id("sess", SESSIONS)
TURN, ENDED_TURN = an_id("turn", ENDED + 7), an_id("turn", ENDED - 7)
BATCH = [an_id("turn", ENDED + n) for n in range(1, 21)]
EPOCHS, SEQS, DATA = [1] * len(BATCH), [EVENTS + 1] * len(BATCH), ["another event"] * len(BATCH)
NEW_SESSION, NEW_MESSAGE, NEW_TURN = an_id("sess", 1 << 99), an_id("msg", 1 << 99), an_id("turn", 1 << 99)
KEY = "key-1000"
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "abandon_turn": (TURN,),
    "add_audit_anchor": (ENTRIES + 1, datetime.now(UTC), b"", b""),
    "allow_idling": ("1000",),
    "append_audit": (
        *(0, b"", ENTRIES + 1, b"mac", b"signature", ["own-1", "own-new"], ["name-1", "new"]),
        *([ENTRIES + 1], [datetime.now(UTC)], ["own-1"], ["sign_in"], [None], [None], [None], ["ok"], [b"mac"]),
    ),
    "append_events": (BATCH, EPOCHS, SEQS, DATA),
    "begin_turn": (
        *(IDLE_SESSION, OWNER, 7, NEW_MESSAGE, "hi", NEW_TURN, an_id("msg", 1 << 98), DEAD, "start"),
        *("a new key", b"fingerprint", False, SLOTS + 1, 10**6),
    ),
    "claim_turn": (TURN, 1, OTHER),
    "claim_turns": (uuid.UUID(int=3), [DEAD], 20, []),
    "count_messages": ([OWNER],),
    "create_session": (NEW_SESSION, OWNER, 7, None, NEW_MESSAGE, "Be brief."),
    "create_ticket": (hash_of(0), SESSION, OWNER, 300.0, datetime.now(UTC)),
    "delete_session": (RUNNING_SESSION, OWNER),
    "erase_keys": (OWNER, 5),
    "erase_name": ("name-7",),
    "erase_usage": (OWNER,),
    "erase_session": (OWNER,),
    "find_audit_anchor": (),
    "find_audit_end": (datetime.now(UTC) - timedelta(minutes=ENTRIES - 50),),
    "find_audit_mac": (ENTRIES,),
    "find_events": (BATCH, [EVENTS] * len(BATCH), ["an event"] * len(BATCH)),
    "find_latest_turn": (SESSION, OWNER),
    "find_message": (SESSION, an_id("msg", 10)),
    "find_owners": ("name-7", "name-7;"),
    "find_session": (SESSION, OWNER, False),
    "find_turn": (RUNNING_SESSION, TURN),
    "finish_turn": (
        *(TURN, 1, RUNNING_SESSION, "done", "{}", EVENTS + 1, "Hello", "complete", None, "model", "end_turn", {}),
        *("req_1", datetime.now(UTC), [EVENTS + 1], ["{}"], 1000),
    ),
    "forget_key": (OWNER, KEY, an_id("turn", 1000)),
    "import_messages": (
        *([SESSION], [NEW_MESSAGE], ["user"], ["Hello"], ["[{}]"], ["complete"], [None]),
        *([None], ["{}"], [datetime.now(UTC)]),
    ),
    "import_session": (NEW_SESSION, OWNER, 7, None, "idle", 1, datetime.now(UTC), datetime.now(UTC)),
    "inspect_server": (),
    "list_audit": (None, 50),
    "list_context": (SESSION, None, 50),
    "list_events": (ENDED_TURN, 10, 50),
    "list_sessions": (OWNER, datetime.now(UTC), SESSION, 50),
    "lock_session": (SESSION,),
    "lock_turn": (TURN,),
    "notify": ("orphans",),
    "prune_audit": (50,),
    "read_audit_head": (),
    "read_history": (SESSION, OWNER, an_id("msg", MESSAGES // 2), None, 50, False),
    "record_attempt": (TURN, 1, 2),
    "release_turns": (BATCH, DEAD),
    "rename_session": (SESSION, OWNER, "A title"),
    "renew_leases": (BATCH, DEAD),
    "replay_key": (OWNER, KEY),
    "request_stop": (TURN,),
    "scan_audit": (ENTRIES // 2, 50),
    "scan_owners": ("own-", 50),
    "scan_messages": (SESSION, MESSAGES // 2, 50),
    "scan_sessions": (SESSION, 50),
    "set_context_start": (SESSION, MESSAGES // 2),
    # Small batches, as those of chatd.sweeps are beside the tables of a service: for a larger part of a table, the
    # planner is right to read all of it.
    "sweep_events": ((KEPT - 10) * 60.0, 2, 2 * EVENTS + 1),
    "sweep_keys": (5,),
    "sweep_tickets": (5, 0.0),
    "sweep_usage": (5,),
    "terminate_backend": (1 << 30,),
    "use_ticket": (hash_of(TICKETS), an_id("sess", TICKETS), 300.0, 0.0),
}
