"""Erasure: of a session, and of a person; what is left of them, and where."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest

from chatd.audit.chain import Entry, now
from chatd.audit.key import AuditKey
from chatd.config import Config
from chatd.keys import AUDIT
from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.model_server import ModelServer, says
from tests.server_process import run
from tests.test_audit import ADMIN, BOB, KEY, check, entries, session_of, settled
from tests.test_recovery import sql
from tests.test_stop import silent
from tests.token_provider import SECRET, bearer, token

PERSON = "canary-person"
OWN = bearer(token(PERSON))
EVE = "CHARACTER:EVE:95465499"
# Every column that holds an owner's name: a new one has to be erased, too.
NAMED = {
    ("agent_sessions", "owner"),
    ("agent_idempotency_keys", "owner"),
    ("agent_usage", "owner"),
    ("agent_owners", "name"),
}
IDS_ONLY = {("agent_audit", "owner"), ("agent_migrations", "name")}

Erase = Callable[..., Coroutine[Any, Any, tuple[int, str]]]


@pytest.fixture
async def guarded(start: Start) -> Chat:
    return await start(auth="jwt", jwt_secret=SECRET, audit_key=KEY)


@pytest.fixture
def erase(config: Config, monkeypatch: pytest.MonkeyPatch) -> Erase:
    async def erase(name: str, **changes: str) -> tuple[int, str]:
        settings = {"DATABASE_URL": config.database_url or "", "CHATD_AUDIT_KEY": KEY, "CHATD_LOG_LEVEL": "warning"}
        return await run("erase", "--owner", name, **settings | {"CHATD_DATA_DIR": str(config.data_dir)} | changes)

    return erase


async def dump(chat: Chat) -> str:
    """Return all rows of all tables."""
    async with chat.turns.repo.connection() as conn:
        tables = await conn.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [await conn.fetch(f"SELECT t::text FROM {table[0]} AS t") for table in tables]
    return json.dumps([[row[0] for row in table] for table in rows])


async def say(chat: Chat, headers: dict[str, str], key: str, session: str | None = None) -> str:
    body = chat.body("canary-message", session)
    answer = await chat.call("POST", "/agent/chat", json=body, headers=headers | {"Idempotency-Key": key})
    return str(answer["session_id"])


async def test_a_deleted_session_leaves_nothing_but_its_key_and_the_audit(guarded: Chat, model: ModelServer) -> None:
    model.default = says("canary-answer")
    session = await session_of(guarded, OWN, title="canary-title", system_prompt="canary-prompt")
    await say(guarded, OWN, "key-1", session)
    await guarded.call("POST", "/agent/stream-ticket", 201, json={"session_id": session}, headers=OWN)
    turn = await sql(guarded, "SELECT id FROM agent_turns")
    stored = await dump(guarded)
    assert all(word in stored for word in ("canary-title", "canary-prompt", "canary-message", "canary-answer", turn))
    await guarded.call("DELETE", f"/agent/session/{session}", 204, headers=OWN)
    stored = (await dump(guarded)).replace(PERSON, "")
    assert "canary" not in stored
    assert turn not in stored
    keys = "SELECT row(fingerprint, session_id, turn_id)::text FROM agent_idempotency_keys"
    assert await sql(guarded, keys) == "(,,)"
    await guarded.call("POST", "/agent/chat", 404, json=guarded.body("hi"), headers=OWN | {"Idempotency-Key": "key-1"})


async def test_a_person_is_erased_beside_a_running_server(guarded: Chat, model: ModelServer, erase: Erase) -> None:
    model.default = says("canary-answer")
    for number in range(3):
        await session_of(guarded, OWN, title="canary-title")
        await say(guarded, OWN, f"key-{number}")
    deleted = await say(guarded, OWN, "key-4")
    await guarded.call("DELETE", f"/agent/session/{deleted}", 204, headers=OWN)
    kept = await say(guarded, BOB, "key-0")
    await entries(guarded)
    assert PERSON in await dump(guarded)
    await guarded.call("PATCH", f"/agent/session/{kept}", json={"title": "x"}, headers=BOB)
    status, output = await erase(PERSON)
    assert (status, output) == (0, "erased sessions: 6, idempotency keys: 4, names: 1\n")
    stored = await dump(guarded)
    assert PERSON not in stored
    assert stored.count("canary-message") == 1
    assert "canary-title" not in stored
    own = AuditKey(KEY).owner_id(PERSON)
    last = (await entries(guarded))[-1]
    assert (last["action"], last["object"], last["owner"]) == ("owner.erase", own, None)
    told = [entry["outcome"] for entry in await entries(guarded) if entry["action"] == "owner.erase"]
    assert told == ["begun", "ok"]
    assert {entry["owner"] for entry in await entries(guarded) if entry["owner_id"] == own} == {own}
    assert (await check(guarded.turns.repo)).findings == []
    assert (await guarded.call("GET", f"/agent/chat/history/{kept}", headers=BOB))["message_count"] == 2
    assert (await guarded.call("GET", "/agent/sessions", headers=OWN))["sessions"] == []
    assert await erase(PERSON) == (0, "erased sessions: 0, idempotency keys: 0, names: 0\n")


async def test_what_runs_is_erased_and_ends(guarded: Chat, model: ModelServer, erase: Erase) -> None:
    model.default = silent
    accept = OWN | {"Prefer": "respond-async"}
    session = (await guarded.call("POST", "/agent/chat", 202, json=guarded.body("hi"), headers=accept))["session_id"]
    async with guarded.client.get(f"/agent/chat/stream/{session}", headers=OWN) as response:
        assert response.status == 200
        await until(lambda: len(model.requests) == 1)
        assert (await erase(PERSON))[0] == 0
        await asyncio.wait_for(response.read(), 10)
    await until(lambda: not guarded.turns.running)
    stored = await dump(guarded)
    assert PERSON not in stored
    assert session not in stored.replace(f"session.create,{session}", "")


async def test_a_name_that_a_server_has_in_hand_is_erased_too(guarded: Chat, erase: Erase) -> None:
    session = await session_of(guarded, OWN)
    erasing = asyncio.create_task(erase(PERSON))
    while await sql(guarded, "SELECT count(*) FROM agent_sessions"):
        await asyncio.sleep(0.02)
    await guarded.call("GET", f"/agent/session/{session}", 404, headers=OWN)
    audit = guarded.client.server.app[AUDIT]
    audit.record(Entry(now(), "forbidden", owner=PERSON))
    await erasing
    await settled(guarded)
    assert PERSON not in await dump(guarded)


async def test_all_owners_of_an_eve_character(guarded: Chat, erase: Erase) -> None:
    body = {"character_id": 95465499}
    for owner in ("first", "second/+=", None):
        headers = bearer(token(EVE, owner=owner))
        await guarded.call("POST", "/agent/session", 201, json=body, headers=headers)
    other = bearer(token(f"{EVE}0"))
    await guarded.call("POST", "/agent/session", 201, json={"character_id": 954654990}, headers=other)
    assert (await erase(f"{EVE}:first"))[1] == "erased sessions: 1, idempotency keys: 0, names: 1\n"
    assert (await erase(EVE))[1] == "erased sessions: 2, idempotency keys: 0, names: 2\n"
    left = await sql(guarded, "SELECT array_agg(owner ORDER BY owner) FROM agent_sessions")
    assert left == [f"{EVE}0"]


async def test_another_name_that_begins_the_same_stays(guarded: Chat, erase: Erase) -> None:
    await session_of(guarded, bearer(token("al")))
    await session_of(guarded, bearer(token("al:ice")))
    await erase("al")
    assert await sql(guarded, "SELECT array_agg(owner) FROM agent_sessions") == ["al:ice"]


async def test_no_name(erase: Erase) -> None:
    for name in ("", " ", "a\nb"):
        assert (await erase(name))[0] == 2
    assert (await erase("x", CHATD_AUDIT_KEY=""))[0] == 2


async def test_every_column_that_names_an_owner_is_erased(config: Config) -> None:
    conn = await asyncpg.connect(config.database_url)
    columns = await conn.fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name IN ('owner', 'name', 'subject')"
    )
    await conn.close()
    assert {tuple(column) for column in columns} == NAMED | IDS_ONLY


async def test_an_admin_finds_the_id_alone(guarded: Chat, erase: Erase) -> None:
    session = await session_of(guarded, OWN)
    await erase(PERSON)
    page = await guarded.call("GET", "/agent/audit", headers=ADMIN)
    created = page["entries"][-1]
    assert (created["action"], created["object"]) == ("session.create", session)
    assert created["owner"] == created["owner_id"] == AuditKey(KEY).owner_id(PERSON)
