"""Statements of which nobody knows whether they were done, and connections that are not what they were."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from chatd.connections import QUERIES
from chatd.errors import InDoubt, StartError, Unavailable
from chatd.models import new_id
from chatd.repo import Repo, open_repo
from tests.chat_client import Chat, until
from tests.conftest import execute

GONE = 999_999
NEVER = """
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;
CREATE TRIGGER never BEFORE DELETE ON agent_turns FOR EACH ROW EXECUTE FUNCTION never()
"""


def lose_the_answer(call: Callable[..., Awaitable[Any]], statement: str = "") -> Callable[..., Awaitable[Any]]:
    """Return the call, done, but with its first result lost, or that of its first call for a statement."""
    lost = False

    async def done(*args: Any, **kwargs: Any) -> Any:
        nonlocal lost
        result = await call(*args, **kwargs)
        if not lost and (not statement or statement in args):
            lost = True
            raise InDoubt(backend=GONE)
        return result

    return done


async def test_who_waits_is_told_even_where_a_beginning_can_not_be_undone(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = (await chat.session())["session_id"]
    await sql_script(chat, NEVER)
    monkeypatch.setattr(chat.turns.repo, "begin_turn", lose_the_answer(chat.turns.repo.begin_turn))
    assert (await chat.post("hi", session, status=500))["code"] == "internal"
    await until(lambda: not chat.turns.running)


async def sql_script(chat: Chat, statements: str) -> None:
    async with chat.turns.repo.connection() as conn:
        await conn.execute(statements)


async def test_a_session_in_doubt_is_there_once(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = chat.turns.repo
    monkeypatch.setattr(repo, "_one", lose_the_answer(repo._one))
    session = await chat.session(title="one", system_prompt="Be brief.")
    assert (session["title"], session["message_count"]) == ("one", 1)
    assert len((await chat.call("GET", "/agent/sessions"))["sessions"]) == 1


async def test_a_deletion_in_doubt_is_done(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    session = (await chat.session())["session_id"]
    repo = chat.turns.repo
    monkeypatch.setattr(repo, "_one", lose_the_answer(repo._one, "delete_session"))
    await chat.call("DELETE", f"/agent/session/{session}", 204)
    await chat.call("DELETE", f"/agent/session/{session}", 404)


async def test_only_a_connection_of_its_own_role_is_ended(cluster: str, dsn: str) -> None:
    """The process id of a connection that has been cut may have gone to anybody since."""
    await execute(cluster, "CREATE ROLE guest LOGIN")
    try:
        ours, other = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
        guest = await asyncpg.connect(dsn.replace("//chatd@", "//guest@"))
        writer = await ours.fetchval("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
        for conn, backend in ((guest, other.get_server_pid()), (ours, writer), (ours, GONE)):
            assert await conn.fetchval(QUERIES["terminate_backend"], backend) is True
        assert await other.fetchval("SELECT 1") == 1
        assert await ours.fetchval(QUERIES["terminate_backend"], other.get_server_pid()) is True
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
            await other.fetchval("SELECT 1")
        for conn in (ours, guest):
            await conn.close()
    finally:
        await execute(cluster, "DROP ROLE guest")


async def create(repo: Repo) -> None:
    await repo.create_session(new_id("sess"), "alice", 7, None, new_id("msg"), None)


async def test_a_server_that_is_a_standby_now_is_left_for_where_its_name_leads(dsn: str) -> None:
    async with open_repo(dsn, 1) as repo:
        async with repo.connection() as conn:
            await conn.execute("SET default_transaction_read_only = on")
        with pytest.raises(Unavailable):
            await create(repo)
        await create(repo)


async def test_too_few_connections_are_told_at_the_start(dsn: str) -> None:
    with pytest.raises(StartError, match=r"does not give 400 connections \(CHATD_DB_POOL\): .*too many clients"):
        async with open_repo(dsn, 400):
            pass
