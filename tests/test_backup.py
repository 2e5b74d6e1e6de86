"""What pg_dump takes from a system at work makes a working one, as everything was at that moment."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from chatd.embedded import find_binaries
from tests.chat_client import Chat, until
from tests.conftest import NUMBERS, Start, execute
from tests.model_server import ModelServer, says
from tests.test_audit import KEY, check, settled
from tests.test_recovery import sql
from tests.test_roles import Roles, migrated, roles

__all__ = ["migrated", "roles"]  # fixtures

TURNS = 20
PIECES = [f"p{n:03} " for n in range(400)]
MISCOUNTED = """
SELECT count(*) FROM agent_sessions AS s
WHERE message_count <> (SELECT count(*) FROM agent_messages WHERE session_id = s.id)
"""
# A turn that runs has its question and no answer, one that has ended has both; neither lacks an event.
HALVES = """
SELECT count(*) FROM agent_turns AS t
WHERE NOT EXISTS (SELECT FROM agent_messages WHERE id = t.user_message_id)
    OR (state = 'running') = EXISTS (SELECT FROM agent_messages WHERE id = t.message_id)
    OR EXISTS (SELECT FROM agent_turns WHERE session_id = t.session_id AND state = 'running')
        <> EXISTS (SELECT FROM agent_sessions WHERE id = t.session_id AND status = 'thinking')
    OR (SELECT count(*) - max(seq) FROM agent_events WHERE turn_id = t.id) <> 0
    OR last_seq <> (SELECT max(seq) FROM agent_events WHERE turn_id = t.id)
"""
# Restored at the moment when the backup was made; in life, leases have long run out by then.
LATER = "UPDATE agent_turns SET lease_until = lease_until - interval '20 seconds' WHERE state = 'running'"
SHOWN = """
SELECT json_object_agg(session_id, (
    SELECT string_agg(data::json ->> 'text', '' ORDER BY seq) FROM agent_events WHERE turn_id = t.id
))
FROM agent_turns AS t WHERE state = 'running'
"""


async def call(program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs, which is to say nothing."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(str(find_binaries() / program), *arguments, stderr=pipe)
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, said) == (0, b"")


@asynccontextmanager
async def restored(cluster: str, dump: Path, owner: str = "chatd") -> AsyncIterator[str]:
    """Yield a new database of its own with what was dumped."""
    name = f"test_{next(NUMBERS)}"
    await execute(cluster, f"CREATE DATABASE {name} OWNER {owner}")
    dsn = cluster.replace("/postgres?", f"/{name}?").replace("//chatd@", f"//{owner}@")
    await call("pg_restore", "--exit-on-error", "--no-owner", "--dbname", dsn, str(dump))
    yield dsn
    await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")


async def keep_posting(chat: Chat, number: int) -> None:
    session = None
    while True:
        session = (await chat.post(f"hi from {number}", session))["session_id"]


async def dump_at_work(chat: Chat, model: ModelServer, dsn: str, dump: Path) -> None:
    """Dump a database while turns stream in it and others begin and end."""
    model.play([says(*PIECES, delay=0.02)] * TURNS)
    for number in range(TURNS):
        await chat.post(f"long {number}", status=202, headers={"Prefer": "respond-async"})
    await until(lambda: len(model.requests) >= TURNS + 1 and all(run.log.text for run in chat.turns.running.values()))
    await settled(chat)
    posting = [asyncio.create_task(keep_posting(chat, number)) for number in range(4)]
    await until(lambda: len(model.requests) > 2 * TURNS)
    await call("pg_dump", "--format=custom", "--file", str(dump), dsn)
    assert len(chat.turns.running) >= TURNS
    for task in posting:
        task.cancel()
    await asyncio.gather(*posting, return_exceptions=True)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return tmp_path / "chatd.dump"


async def test_a_dump_of_a_system_at_work(
    start: Start, model: ModelServer, dsn: str, cluster: str, dump: Path, tmp_path: Path
) -> None:
    first = await start(audit_key=KEY)
    key = {"Idempotency-Key": "k"}
    answer = await first.post("once", headers=key)
    await dump_at_work(first, model, dsn, dump)
    async with restored(cluster, dump) as copy:
        conn = await asyncpg.connect(copy)
        assert (await conn.fetchval(MISCOUNTED), await conn.fetchval(HALVES)) == (0, 0)
        shown: dict[str, str] = json.loads(await conn.fetchval(SHOWN))
        assert len(shown) >= TURNS
        await conn.execute(LATER)
        await conn.close()
        model.scripts.clear()
        model.default = says("the rest")
        second = await start(database_url=copy, data_dir=tmp_path / "two", audit_key=KEY)
        await until(lambda: bool(second.turns.running))
        async with asyncio.timeout(30):
            while await sql(second, "SELECT count(*) FROM agent_turns WHERE state = 'running'"):
                await asyncio.sleep(0.05)
        for session, text in shown.items():
            await check_continued(second, session, text or "")
        assert await sql(second, MISCOUNTED) == await sql(second, HALVES) == 0
        replayed = await second.post("once", headers=key)
        assert replayed["turn_id"] == answer["turn_id"]
        assert (await second.post("more", answer["session_id"]))["message"]["content"] == "the rest"
        await settled(second)
        checked = await check(second.turns.repo)
        assert checked.findings == []
        assert checked.count > TURNS


async def check_continued(chat: Chat, session: str, text: str) -> None:
    """Check that the answer goes on from the text that was in the dump."""
    *_, last = (await chat.history(session))["messages"]
    assert (last["role"], last["status"]) == ("assistant", "complete")
    assert last["content"] == text.rstrip() + "the rest" or last["content"] == text + "the rest"


async def test_a_dump_by_the_role_that_owns_the_tables(
    migrated: Roles, start: Start, cluster: str, dump: Path, tmp_path: Path
) -> None:
    first = await start(database_url=migrated.server, audit_key=KEY)
    session = (await first.post("hi"))["session_id"]
    await settled(first)
    await call("pg_dump", "--format=custom", "--file", str(dump), migrated.owner)
    async with restored(cluster, dump, "chatd_owner") as copy:
        by_server = copy.replace("//chatd_owner@", "//chatd_server@")
        second = await start(database_url=by_server, data_dir=tmp_path / "two", audit_key=KEY)
        await second.post("more", session)
        assert (await second.history(session))["message_count"] == 4
        await settled(second)
        assert (await check(second.turns.repo)).findings == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql(second, "DELETE FROM agent_audit")
        await second.client.close()
