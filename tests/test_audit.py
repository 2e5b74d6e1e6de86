"""The audit: what is in it and what is not, who may read it, and what is found when somebody tampers with it."""

import asyncio
import re
import stat
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from chatd.app import create_app
from chatd.audit import writer
from chatd.audit.chain import Entry
from chatd.audit.key import AuditKey, make_key, read_audit_key
from chatd.audit.verify import Check, check_audit
from chatd.audit.writer import EACH, Flood
from chatd.config import Config
from chatd.errors import ConfigError, InDoubt
from chatd.keys import AUDIT, REPO
from chatd.repo import Repo
from chatd.serve import make_runner
from tests.chat_client import CHARACTER, Chat, until
from tests.conftest import Start, execute
from tests.counters import count_statements
from tests.model_server import ModelServer, says
from tests.server_process import run
from tests.test_recovery import sql
from tests.test_stop import silent
from tests.token_provider import SECRET, bearer, token

ALICE, BOB, ADMIN = bearer(token("alice")), bearer(token("bob")), bearer(token("root", role="admin"))
KEY = "a key for the audit that is long enough"
TAMPER = "SET session_replication_role = replica; ALTER TABLE agent_audit DISABLE TRIGGER agent_audit_append_only; "


@pytest.fixture
async def guarded(start: Start) -> Chat:
    return await start(auth="jwt", jwt_secret=SECRET, audit_key=KEY)


@pytest.fixture
async def repo(guarded: Chat) -> Repo:
    return guarded.turns.repo


async def session_of(chat: Chat, headers: dict[str, str] = ALICE, **fields: Any) -> str:
    body = {"character_id": CHARACTER, **fields}
    return str((await chat.call("POST", "/agent/session", 201, json=body, headers=headers))["session_id"])


async def entries(chat: Chat, **query: Any) -> list[dict[str, Any]]:
    """Return what the audit holds, oldest first, once all is written."""
    await settled(chat)
    page = await chat.call("GET", "/agent/audit", headers=ADMIN, params=query)
    return list(reversed(page["entries"]))


async def settled(chat: Chat) -> None:
    audit = chat.client.server.app[AUDIT]
    audit.hurry.set()
    await until(audit.idle.is_set)


async def check(repo: Repo, key: str = KEY) -> Check:
    return await check_audit(repo, AuditKey(key))


def actions(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(entry["action"], entry["object"], entry["outcome"]) for entry in found]


async def test_what_is_done_is_recorded(guarded: Chat, model: ModelServer, repo: Repo) -> None:
    session = await session_of(guarded)
    path = f"/agent/session/{session}"
    await guarded.call("PATCH", path, json={"title": "A title"}, headers=ALICE | {"X-Request-ID": "req-1"})
    await guarded.call("POST", "/agent/stream-ticket", 201, json={"session_id": session}, headers=ALICE)
    model.default = silent
    accept = ALICE | {"Prefer": "respond-async"}
    await guarded.call("POST", "/agent/chat", 202, json=guarded.body("hi", session), headers=accept)
    for _ in range(2):  # the second one stops nothing
        await guarded.call("POST", f"/agent/chat/stop/{session}", headers=ALICE)
    model.default = says("Hello")
    made = await guarded.call("POST", "/agent/chat", json=guarded.body("hi"), headers=ALICE)
    await guarded.call("DELETE", path, 204, headers=ALICE)
    found = await entries(guarded)
    assert sorted(actions(found)) == sorted(
        [
            ("session.create", session, "ok"),
            ("session.rename", session, "ok"),
            ("ticket.create", session, "ok"),
            ("turn.stop", session, "ok"),
            ("session.create", made["session_id"], "ok"),
            ("session.delete", session, "ok"),
        ]
    )
    assert [entry["seq"] for entry in found] == [1, 2, 3, 4, 5, 6]
    assert {entry["owner"] for entry in found} == {"alice"}
    assert {entry["owner_id"] for entry in found} == {AuditKey(KEY).owner_id("alice")}
    assert {entry["address"] for entry in found} == {"127.0.0.1"}
    assert found[1]["request_id"] == "req-1"
    written = [datetime.fromisoformat(entry["at"]) for entry in found]
    assert all(abs(at.timestamp() - time.time()) < 60 for at in written)
    assert (await check(repo)).findings == []


async def test_what_is_refused_is_recorded(guarded: Chat) -> None:
    session = await session_of(guarded)
    await guarded.call("GET", "/agent/sessions", 401)
    await guarded.call("GET", f"/agent/session/{session}", 401, headers=bearer(token(exp=time.time() - 9)))
    await guarded.call("GET", f"/agent/chat/stream/{session}?ticket=wrong", 401)
    await guarded.call("PURGE", "/canary", 401)
    await guarded.call("GET", "/agent/audit", 403, headers=ALICE)
    own = bearer(token("carol", character_ids=[9]))
    await guarded.call("POST", "/agent/chat", 403, json=guarded.body("hi"), headers=own)
    found = (await entries(guarded))[1:]
    assert actions(found) == [
        ("sign_in", "GET /agent/sessions", "unauthorized"),
        ("sign_in", session, "unauthorized"),
        ("sign_in", session, "unauthorized"),
        ("sign_in", "- -", "unauthorized"),
        ("forbidden", "GET /agent/audit", "forbidden"),
        ("forbidden", "POST /agent/chat", "character_forbidden"),
    ]
    assert [entry["owner"] for entry in found] == [None, None, None, None, "alice", "carol"]


async def test_an_admin_reads_sessions_of_others_and_that_is_recorded(guarded: Chat) -> None:
    body = guarded.body("hi")
    session = (await guarded.call("POST", "/agent/chat", json=body, headers=ALICE))["session_id"]
    path, history = f"/agent/session/{session}", f"/agent/chat/history/{session}"
    assert (await guarded.call("GET", path, headers=ADMIN))["session_id"] == session
    assert (await guarded.call("GET", history, headers=ADMIN))["message_count"] == 2
    reads = [entry for entry in await entries(guarded) if entry["action"] == "session.read"]
    assert [(entry["object"], entry["owner"]) for entry in reads] == [(session, "root")] * 2
    for method, where, options in [
        ("PATCH", path, {"json": {"title": "x"}}),
        ("DELETE", path, {}),
        ("GET", f"/agent/chat/stream/{session}", {}),
        ("POST", f"/agent/chat/stop/{session}", {}),
        ("POST", "/agent/stream-ticket", {"json": {"session_id": session}}),
        ("POST", "/agent/chat", {"json": guarded.body("hi", session)}),
    ]:
        await guarded.call(method, where, 404, headers=ADMIN, **options)
    for where in (path, history):
        await guarded.call("GET", where, 404, headers=BOB)
        await guarded.call("GET", where, headers=ALICE)
    await guarded.call("GET", f"/agent/session/sess-{'0' * 32}", 404, headers=ADMIN)
    own = await session_of(guarded, ADMIN)
    await guarded.call("GET", f"/agent/session/{own}", headers=ADMIN)
    assert len([entry for entry in await entries(guarded) if entry["action"] == "session.read"]) == 2


async def test_pages(guarded: Chat) -> None:
    for _ in range(5):
        await session_of(guarded)
    seen: list[int] = []
    before: dict[str, str] = {}
    while True:
        page = await guarded.call("GET", "/agent/audit", headers=ADMIN, params={"limit": 2} | before)
        seen += [entry["seq"] for entry in page["entries"]]
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert seen == [5, 4, 3, 2, 1]
    for wrong in ("x", "-1", "9" * 19, ""):
        await guarded.call("GET", "/agent/audit", 400, headers=ADMIN, params={"before": wrong})
    await guarded.call("GET", "/agent/audit", 403, headers=ALICE)
    await guarded.call("GET", "/agent/audit", 401)


async def test_without_tokens_nobody_is_an_admin_or_named(chat: Chat) -> None:
    await chat.session()
    await chat.call("GET", "/agent/audit", 403)
    await settled(chat)
    assert await sql(chat, "SELECT array_agg(DISTINCT owner) FROM agent_audit") == [None]


async def test_a_turn_in_a_session_that_is_there_costs_nothing(
    guarded: Chat, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await session_of(guarded)
    monkeypatch.setattr("tests.counters.BACKGROUND_QUERIES", set())
    statements = await count_statements(guarded)
    await guarded.call("POST", "/agent/chat", json=guarded.body("hi", session), headers=ALICE)
    await asyncio.sleep(1.2)
    assert not any("audit" in name for name in statements)
    assert len(await entries(guarded)) == 1


async def test_content_is_not_in_it(guarded: Chat, model: ModelServer) -> None:
    model.default = says("canary-answer")
    given = token("alice", jti="canary-claim")
    session = await session_of(guarded, bearer(given), title="canary-title", system_prompt="canary-prompt")
    headers = bearer(given) | {"Cookie": "a=canary-cookie", "Idempotency-Key": "canary-key"}
    await guarded.call("POST", "/agent/chat", json=guarded.body("canary-message", session), headers=headers)
    await guarded.call("PATCH", f"/agent/session/{session}", json={"title": "canary-2"}, headers=headers)
    ticket = await guarded.call("POST", "/agent/stream-ticket", 201, json={"session_id": session}, headers=headers)
    await guarded.call("GET", f"/agent/canary?ticket={given}", 401)
    await guarded.call("GET", "/agent/canary", 401, headers={"Authorization": f"Bearer x{given}"})
    await guarded.call("GET", "/agent/sessions", 401, headers={"X-Forwarded-For": "canary", "X-Request-ID": "ca nary"})
    await guarded.call("GET", "/agent/sessions", 401, headers={"X-Forwarded-For": "fe80::1%canary"})
    await settled(guarded)
    stored = await sql(guarded, "SELECT string_agg(agent_audit::text, ' ') FROM agent_audit")
    assert session in stored
    for secret in ("canary", given, given.rpartition(".")[2], ticket["ticket"], "alice"):
        assert secret not in stored


async def test_behind_a_proxy_on_this_host(guarded: Chat) -> None:
    for given in ("1.2.3.4, 2001:DB8:0::1", "9.9.9.9,8.8.8.8", "x", ""):
        await guarded.call("GET", "/agent/sessions", 401, headers={"X-Forwarded-For": given})
    found = [entry["address"] for entry in await entries(guarded)]
    assert found == ["2001:db8::1", "8.8.8.8", "127.0.0.1", "127.0.0.1"]


async def test_a_flood_is_counted(guarded: Chat) -> None:
    await asyncio.gather(*(guarded.call("GET", "/agent/sessions", 401) for _ in range(50)))
    proxied = {"X-Forwarded-For": "1.2.3.4"}
    await guarded.call("GET", "/agent/sessions", 401, headers=proxied)
    assert len(await entries(guarded)) == EACH + 1
    await guarded.client.server.app[AUDIT].flush()
    last = (await entries(guarded))[-1]
    assert (last["action"], last["object"], last["address"]) == ("sign_in", "40 more", "127.0.0.1")


def test_a_flood_from_everywhere_is_bounded() -> None:
    flood = Flood()
    now = datetime.now(UTC)
    admitted = sum(flood.admits(Entry(now, "sign_in", address=f"10.0.{n >> 8}.{n & 255}")) for n in range(9999))
    assert admitted == writer.SOURCES + EACH
    assert [entry.object for entry in flood.end()] == [f"{9999 - writer.SOURCES - EACH} more"]
    assert not flood.counts
    assert flood.end() == []


async def test_it_can_only_be_appended_to(guarded: Chat, repo: Repo) -> None:
    await session_of(guarded)
    async with repo.connection() as conn:
        for statement in ("UPDATE agent_audit SET owner = 'x'", "DELETE FROM agent_audit", "TRUNCATE agent_audit"):
            for mode in ("origin", "replica"):
                await conn.execute(f"SET session_replication_role = {mode}")
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="can only be appended to"):
                    await conn.execute(statement)
    assert len(await entries(guarded)) == 1


LAST = "(SELECT max(seq) FROM agent_audit)"
TAMPERING = {
    "changed owner": ("UPDATE agent_audit SET owner = 'own-x' WHERE seq = 3", r"entry 3 was changed"),
    "changed action": ("UPDATE agent_audit SET action = 'x' WHERE seq = 1", r"entry 1 was changed"),
    "changed time": ("UPDATE agent_audit SET at = at + interval '1 us' WHERE seq = 2", r"entry 2 was changed"),
    "changed name": ("UPDATE agent_owners SET name = 'mallory'", r"the name of own-[0-9a-f]+ was changed"),
    "a null": ("UPDATE agent_audit SET object = NULL WHERE seq = 2", r"entry 2 was changed"),
    "changed mac": (
        "UPDATE agent_audit SET mac = set_byte(mac, 20, 7 # get_byte(mac, 20)) WHERE seq = 3",
        "entry 3 was",
    ),
    "middle": ("DELETE FROM agent_audit WHERE seq = 3", r"entry 3 is missing"),
    "middle, closed": (
        "DELETE FROM agent_audit WHERE seq = 3; UPDATE agent_audit SET seq = seq - 1 WHERE seq > 3",
        r"entry 3 was changed",
    ),
    "first": ("DELETE FROM agent_audit WHERE seq <= 2", r"entries 1 to 2 are missing"),
    "last": (f"DELETE FROM agent_audit WHERE seq = {LAST}", r"entry 5 is missing at the end"),
    "last, and the head": (
        f"DELETE FROM agent_audit WHERE seq = {LAST};"
        f"UPDATE agent_audit_head SET (seq, mac) = (SELECT seq, mac FROM agent_audit WHERE seq = {LAST})",
        r"head 4 was changed",
    ),
    "all": ("TRUNCATE agent_audit", r"entries 1 to 5 are missing at the end"),
    "all, and an anchor": (
        "INSERT INTO agent_audit_anchors SELECT seq, now(), mac, signature FROM agent_audit_head; TRUNCATE agent_audit",
        r"anchor 5 was changed",
    ),
    "swapped": (
        "UPDATE agent_audit SET seq = seq + 100 WHERE seq IN (2, 3);"
        "UPDATE agent_audit SET seq = CASE seq WHEN 102 THEN 3 ELSE 2 END WHERE seq > 100",
        r"entry 2 was changed.*; entry 3 was changed",
    ),
    "swapped, macs stay": (
        "UPDATE agent_audit a SET object = b.object FROM agent_audit b WHERE a.seq + b.seq = 5 AND a.seq IN (2, 3)",
        r"entry 2 was changed.*; entry 3 was changed",
    ),
    "forged": (
        "INSERT INTO agent_audit SELECT 6, now(), owner, action, object, request_id, address, outcome, mac"
        " FROM agent_audit WHERE seq = 5",
        r"entry 6 was changed.*; the head is at 5",
    ),
    "no head": ("DELETE FROM agent_audit_head", r"the head is missing"),
}


@pytest.mark.parametrize("way", TAMPERING)
async def test_tampering_is_found(guarded: Chat, repo: Repo, config: Config, way: str) -> None:
    statement, finding = TAMPERING[way]
    for _ in range(5):
        await session_of(guarded)
    assert (await check(repo)).findings == []
    assert config.database_url is not None
    await execute(config.database_url, TAMPER + statement)
    assert re.search(finding, "; ".join((await check(repo)).findings))


@pytest.mark.parametrize("way", ["last, and the head", "forged", "last"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_what_is_written_later_hides_nothing(
    start: Start, guarded: Chat, repo: Repo, config: Config, way: str, restarted: bool
) -> None:
    for _ in range(5):
        await session_of(guarded)
    assert config.database_url is not None
    await execute(config.database_url, TAMPER + TAMPERING[way][0])
    chat = await start(auth="jwt", jwt_secret=SECRET, audit_key=KEY) if restarted else guarded
    for _ in range(3):
        await session_of(chat)
    await settled(chat)
    assert (await check(repo)).findings != []
    assert (await entries(chat))[-1]["seq"] >= 7


async def test_another_key_is_told_from_a_change(guarded: Chat, repo: Repo, start: Start, config: Config) -> None:
    await session_of(guarded)
    other = await start(auth="jwt", jwt_secret=SECRET, data_dir=config.data_dir / "two")
    await session_of(other)
    await session_of(guarded)
    found = (await check(repo)).findings
    assert len(found) == 1
    assert found[0].startswith("1 signed with another key than CHATD_AUDIT_KEY")
    assert "changed" not in "".join((await check(repo, "another key, as long as it has to be")).findings)


async def test_two_processes_write_one_chain(guarded: Chat, start: Start, repo: Repo, config: Config) -> None:
    other = await start(auth="jwt", jwt_secret=SECRET, audit_key=KEY, data_dir=config.data_dir / "two")
    await asyncio.gather(*(session_of(chat, by) for chat in (guarded, other) for by in (ALICE, BOB) for _ in range(50)))
    found = await check(repo)
    assert (found.findings, found.count, found.seq) == ([], 200, 200)


async def test_an_answer_that_is_lost_makes_no_entry_twice(
    guarded: Chat, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, losses = repo.append_audit, iter([True, True, False])

    async def lose_the_answer(*values: Any) -> bool:
        done = await append(*values)
        if next(losses, False):
            raise InDoubt(backend=999_999)
        return done

    monkeypatch.setattr(repo, "append_audit", lose_the_answer)
    monkeypatch.setattr(writer, "RETRY", 0.05)
    for _ in range(3):
        await session_of(guarded)
    found = await check(repo)
    assert (found.findings, found.count) == ([], 3)


async def test_while_the_database_is_away_entries_wait(
    guarded: Chat, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done is done, and told; an admin's read has to wait for its entry."""
    session = await session_of(guarded)
    monkeypatch.setattr(writer, "RETRY", 0.05)
    monkeypatch.setattr(writer, "WAIT", 0.3)
    append = repo.append_audit
    away = True

    async def refuse(*values: Any) -> bool:
        if away:
            raise InDoubt(backend=999_999)
        return await append(*values)

    monkeypatch.setattr(repo, "append_audit", refuse)
    await guarded.call("PATCH", f"/agent/session/{session}", json={"title": "x"}, headers=ALICE)
    await guarded.call("GET", f"/agent/session/{session}", 503, headers=ADMIN)
    away = False
    assert [entry["action"] for entry in await entries(guarded)] == ["session.create", "session.rename", "session.read"]


async def test_the_queue_is_bounded(guarded: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_QUEUE", 3)
    audit = guarded.client.server.app[AUDIT]
    for _ in range(10):
        audit.record(Entry(datetime.now(UTC), "sign_in"))
    assert (len(audit.queue), audit.dropped) == (3, 7)
    assert len(await entries(guarded)) == 3
    assert audit.dropped == 0


async def test_a_stopped_server_has_written_all(start: Start, guarded: Chat, repo: Repo) -> None:
    other = await start(auth="jwt", jwt_secret=SECRET, audit_key=KEY)
    await other.call("POST", "/agent/chat", json=other.body("hi"), headers=ALICE)
    for _ in range(EACH + 5):
        await other.call("GET", "/agent/sessions", 401)
    await other.client.close()
    found = await entries(guarded)
    assert sorted(entry["action"] for entry in found) == ["session.create"] + ["sign_in"] * (EACH + 1)
    assert found[-1]["object"] == "5 more"


async def test_a_client_that_is_gone_hides_no_session(guarded: Chat, model: ModelServer) -> None:
    model.default = silent
    task = asyncio.create_task(guarded.call("POST", "/agent/chat", json=guarded.body("hi"), headers=ALICE))
    await until(lambda: len(model.requests) == 1)
    task.cancel()
    assert [entry["action"] for entry in await entries(guarded)] == ["session.create"]


async def test_what_is_done_for_a_client_that_is_gone_is_recorded(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_runner(create_app(replace(config, auth="jwt", jwt_secret=SECRET, audit_key=KEY)))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    repo, done = runner.app[REPO], asyncio.Event()
    rename = repo.rename_session

    async def take_long(*values: Any) -> Any:
        session = await rename(*values)
        done.set()
        await asyncio.sleep(5)
        return session

    monkeypatch.setattr(repo, "rename_session", take_long)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        session = await session_of(Chat(client))
        path = f"/agent/session/{session}"
        renaming = asyncio.create_task(client.patch(path, json={"title": "x"}, headers=ALICE))
        await done.wait()
        renaming.cancel()
        await asyncio.sleep(0.1)
    await runner.app[AUDIT].flush()
    async with repo.connection() as conn:
        outcomes = [row[0] for row in await conn.fetch("SELECT outcome FROM agent_audit ORDER BY seq")]
    await runner.cleanup()
    assert outcomes == ["ok", "cancelled"]


# The key


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path / "data")
    with pytest.raises(ConfigError, match="CHATD_AUDIT_KEY"):
        read_audit_key(config)
    key = read_audit_key(config, make=True)
    assert read_audit_key(config).secret == read_audit_key(config, make=True).secret == key.secret
    file = tmp_path / "data" / "audit.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["audit.key"]
    make_key(file)
    file.write_text("short\n")
    with pytest.raises(ConfigError, match="holds no key"):
        read_audit_key(config)


# The commands


@pytest.fixture
def command(config: Config, guarded: Chat) -> Callable[..., Any]:
    async def command(*arguments: str, **changes: str) -> tuple[int, str]:
        settings = {"DATABASE_URL": config.database_url or "", "CHATD_AUDIT_KEY": KEY, "CHATD_LOG_LEVEL": "warning"}
        return await run(*arguments, **settings | {"CHATD_DATA_DIR": str(config.data_dir)} | changes)

    return command


@pytest.fixture
async def five(guarded: Chat) -> AsyncIterator[list[str]]:
    yield [await session_of(guarded) for _ in range(5)]


@pytest.mark.usefixtures("five")
async def test_chatd_audit_verify(command: Any, config: Config) -> None:
    status, output = await command("audit", "verify")
    assert (status, output.count("\n")) == (0, 1)
    assert output.startswith("audit: 5 entries as they were written, the last is 5 ")
    status, output = await command("audit", "verify", CHATD_AUDIT_KEY="another key that is as long as it has to be")
    assert status == 1
    assert "another key" in output
    status, output = await command("audit", "verify", CHATD_AUDIT_KEY="")
    assert (status, output.count("\n")) == (2, 1)
    assert config.database_url is not None
    await execute(config.database_url, TAMPER + "DELETE FROM agent_audit WHERE seq = 2")
    status, output = await command("audit", "verify")
    assert (status, output) == (1, "chatd: the audit is not as it was written: entry 2 is missing\n")


@pytest.mark.usefixtures("five")
async def test_chatd_audit_prune(command: Any, guarded: Chat, repo: Repo) -> None:
    third = (await entries(guarded))[2]["at"]
    assert await command("audit", "prune", "--before", "2020-01-01") == (0, "audit: 0 entries deleted\n")
    assert await command("audit", "prune", "--before", third) == (0, "audit: 2 entries deleted\n")
    await session_of(guarded)  # a server goes on beside it
    found = await entries(guarded)
    assert [entry["seq"] for entry in found] == [3, 4, 5, 6, 7]
    assert (found[3]["action"], found[3]["object"], found[3]["outcome"]) == ("audit.prune", "entries up to 2", "ok")
    assert (await check(repo)).findings == []
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert await command("audit", "prune", "--before", later) == (0, "audit: 5 entries deleted\n")
    await session_of(guarded)
    assert [entry["seq"] for entry in await entries(guarded)] == [8, 9]
    assert (await check(repo)).findings == []
    async with repo.connection() as conn:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute("DELETE FROM agent_audit")
    assert (await command("audit", "prune", "--before", "yesterday"))[0] == 2


@pytest.mark.usefixtures("five")
async def test_pruning_does_not_hide_what_was_wrong(command: Any, guarded: Chat, config: Config) -> None:
    assert config.database_url is not None
    await execute(config.database_url, TAMPER + "DELETE FROM agent_audit WHERE seq = 2")
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    status, output = await command("audit", "prune", "--before", later)
    assert status == 0
    assert "entry 2 is missing" in output
    assert [entry["outcome"] for entry in await entries(guarded)] == ["unverified"]


async def test_pruning_beside_writers(command: Any, guarded: Chat, start: Start, repo: Repo) -> None:
    other = await start(auth="jwt", jwt_secret=SECRET, audit_key=KEY)
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    pruning = asyncio.create_task(command("audit", "prune", "--before", later))
    made = 0
    while not pruning.done():
        await asyncio.gather(session_of(guarded), session_of(other))
        made += 2
    assert (await pruning)[0] == 0
    found = await check(repo)
    assert (found.findings, found.seq) == ([], made + 1)


async def test_pruning_is_for_the_owner_of_the_table(command: Any, guarded: Chat, config: Config) -> None:
    await session_of(guarded)
    assert config.database_url is not None
    name = urlsplit(config.database_url).path.lstrip("/")
    await execute(
        config.database_url,
        f"DROP ROLE IF EXISTS served; CREATE ROLE served LOGIN; GRANT CREATE ON SCHEMA public TO served;"
        f"GRANT CONNECT ON DATABASE {name} TO served; GRANT ALL ON ALL TABLES IN SCHEMA public TO served",
    )
    url = config.database_url.replace("://chatd@", "://served@")
    status, output = await command("audit", "prune", "--before", "2999-01-01", DATABASE_URL=url)
    await execute(config.database_url, "DROP OWNED BY served; DROP ROLE served")
    why = "has to be the role that owns the tables: must be owner of table agent_audit"
    assert (status, output) == (1, f"chatd: CHATD_MIGRATE_URL: {why}\n")
    assert len(await entries(guarded)) == 1
