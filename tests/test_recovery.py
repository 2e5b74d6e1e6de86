"""Turns whose process is gone, and what one process does while another runs a turn."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

from chatd import recovery
from chatd.config import Config
from chatd.errors import InDoubt
from chatd.models import TurnRequest, new_turn
from chatd.recovery import dead_boots, hold_boot_id
from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.model_server import Exchange, ModelServer, says
from tests.sse_client import events, text_of

# Of a process elsewhere that has renewed nothing for long.
ORPHANED = "boot_id = gen_random_uuid(), lease_until = now() - interval '1 second'"


async def sql(chat: Chat, statement: str, *values: Any) -> Any:
    async with chat.turns.repo.connection() as conn:
        return await conn.fetchval(statement, *values)


def test_a_boot_id_is_dead_once_its_lock_is_free(tmp_path: Path) -> None:
    with hold_boot_id(tmp_path) as one:
        with hold_boot_id(tmp_path) as two:
            assert dead_boots(tmp_path) == {}
        assert set(dead_boots(tmp_path)) == {two}
    assert set(dead_boots(tmp_path)) == {one, two}


async def test_an_orphan_is_continued_with_its_attempts_and_events(start: Start, model: ModelServer) -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("One ", "two")
        await asyncio.sleep(30)

    model.play([silent])
    first = await start()
    accepted = await first.post("count", status=202, headers={"Prefer": "respond-async"})
    (run,) = first.turns.running.values()
    await until(lambda: "".join(run.log.text) == "One two")
    await sql(first, f"UPDATE agent_turns SET {ORPHANED}")

    model.default = says(" three")
    second = await start()
    received = await second.attach(accepted["session_id"], f"{accepted['turn_id']}.1")
    assert text_of(received) == "One two three"
    assert [event.seq for event in received] == list(range(2, len(received) + 2))
    assert model.requests[1].messages[-1] == ("assistant", "One two")
    assert await sql(second, "SELECT attempt + 10 * epoch + 100 * recoveries FROM agent_turns") == 121


async def test_the_process_that_lost_a_turn_writes_nothing_more(start: Start, model: ModelServer) -> None:
    more = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("One")
        await more.wait()
        await exchange.text(" stale")
        await exchange.stop()

    model.play([waits])
    chat = await start()
    async with chat.streaming("count") as response:
        await response.content.readline()
        (run,) = chat.turns.running.values()
        await until(lambda: "".join(run.log.text) == "One")
        await sql(chat, "UPDATE agent_turns SET epoch = 2, boot_id = $1", uuid.uuid4())
        more.set()
        body = await response.read()  # it ends, without an end of the turn
    assert b'"done"' not in body
    assert b"stale" not in body
    assert await sql(chat, "SELECT string_agg(data, '') FROM agent_events WHERE data LIKE '%stale%'") is None
    assert await sql(chat, "SELECT count(*) FROM agent_messages") == 1
    assert await sql(chat, "SELECT state FROM agent_turns") == "running"


async def test_ten_recoveries_without_a_new_event_end_the_turn(start: Start, model: ModelServer) -> None:
    async def silent(exchange: Exchange) -> None:
        await asyncio.sleep(30)

    model.default = silent
    chat = await start()
    accepted = await chat.post("hi", status=202, headers={"Prefer": "respond-async"})
    await sql(chat, f"UPDATE agent_turns SET recoveries = 10, recovery_seq = 1, {ORPHANED}")
    other = await start()
    received = await other.attach(accepted["session_id"], f"{accepted['turn_id']}.1")
    assert [event.data.get("code") for event in received] == ["recovery_limit"]


@pytest.mark.parametrize(("recoveries", "seq", "then"), [(9, 1, 10), (10, 0, 1)])
async def test_the_tenth_recovery_and_one_with_new_events_go_on(
    start: Start, model: ModelServer, recoveries: int, seq: int, then: int
) -> None:
    model.play([lambda _: asyncio.sleep(30)])
    chat = await start()
    accepted = await chat.post("hi", status=202, headers={"Prefer": "respond-async"})
    await until(lambda: len(model.requests) == 1)
    await sql(chat, f"UPDATE agent_turns SET recoveries = {recoveries}, recovery_seq = {seq}, {ORPHANED}")
    other = await start()
    received = await other.attach(accepted["session_id"], f"{accepted['turn_id']}.1")
    assert received[-1].data.get("status") == "complete"
    assert await sql(other, "SELECT recoveries FROM agent_turns") == then


async def test_leases_are_renewed(start: Start, model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "RENEWAL", 0.05)
    model.default = lambda _: asyncio.sleep(30)
    chat = await start()
    await chat.post("hi", status=202, headers={"Prefer": "respond-async"})
    lease = await sql(chat, "SELECT lease_until FROM agent_turns")
    async with asyncio.timeout(10):
        while await sql(chat, "SELECT lease_until FROM agent_turns") == lease:
            await asyncio.sleep(0.01)
    assert await sql(chat, "SELECT epoch FROM agent_turns WHERE state = 'running'") == 1


async def test_a_begin_in_doubt_is_undone(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told 503: then nothing may be there, though the commit had been made."""
    session = (await chat.post("one"))["session_id"]
    begin = chat.turns.repo.begin_turn

    async def lose_the_answer(*args: Any, **kwargs: Any) -> None:
        await begin(*args, **kwargs)
        raise InDoubt(backend=999_999)

    monkeypatch.setattr(chat.turns.repo, "begin_turn", lose_the_answer)
    for named in (session, None):
        problem = await chat.post("two", named, status=503)
        assert problem["code"] == "unavailable"
    await until(lambda: not chat.turns.running)
    monkeypatch.undo()
    assert (await chat.history(session))["message_count"] == 2
    assert len((await chat.call("GET", "/agent/sessions"))["sessions"]) == 1
    await chat.post("three", session)


async def test_a_reader_follows_a_turn_that_runs_elsewhere(start: Start, config: Config, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.1)
    one, two = await start(), await start(data_dir=config.data_dir / "two")
    accepted = await one.post("hi", status=202, headers={"Prefer": "respond-async"})
    received = await two.attach(accepted["session_id"])
    assert text_of(received) == "abcdefghij"
    assert received[-1].kind == "done"
    reset = await two.attach(accepted["session_id"], "nonsense")
    assert text_of(reset) == "abcdefghij"


async def test_a_mirror_whose_events_are_swept_sends_its_readers_away(
    start: Start, config: Config, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still while the turn ended and its events were swept: no wrong text, no wrong id."""
    model.default = says(*"abcdefghij", delay=0.1)
    one, two = await start(), await start(data_dir=config.data_dir / "two")
    accepted = await one.post("hi", status=202, headers={"Prefer": "respond-async"})
    (run,) = one.turns.running.values()
    list_events = two.turns.repo.list_events
    async with two.attaching(accepted["session_id"]) as response:
        source = events(response)
        received = [await anext(source), await anext(source)]
        moving = asyncio.Event()

        async def stand_still(*values: Any) -> Any:
            await moving.wait()
            return await list_events(*values)

        monkeypatch.setattr(two.turns.repo, "list_events", stand_still)
        await run.task
        await sql(one, "DELETE FROM agent_events WHERE seq < 9")
        moving.set()
        received += [event async for event in source]
    text = text_of(received)
    assert "abcdefghij".startswith(text)
    rest = await two.attach(accepted["session_id"], received[-1].id)
    assert text_of([*received, *rest]) == "abcdefghij"


async def test_a_post_waits_for_its_answer_whoever_gives_it(start: Start, config: Config, model: ModelServer) -> None:
    async def falls_silent(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("One")
        await asyncio.sleep(30)

    model.play([falls_silent])
    model.default = says(" two", delay=0.3)
    one, two = await start(), await start(data_dir=config.data_dir / "two")
    session = (await one.session())["session_id"]
    posting = asyncio.create_task(one.post("hi", session))
    await until(lambda: any(run.log.text for run in one.turns.running.values()))
    turn = await two.turns.repo.find_latest_turn(session, "anonymous")
    assert turn is not None
    claimed = await two.turns.repo.claim_turn(turn, two.turns.boot_id)
    assert claimed is not None
    await two.turns.take_over(claimed)
    await one.turns.renew()  # now it knows
    assert (await posting)["message"]["content"] == "One two"


async def test_a_post_whose_session_is_deleted_meanwhile(chat: Chat, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.1)
    session = (await chat.session())["session_id"]
    posting = asyncio.create_task(chat.post("hi", session, status=404))
    await until(lambda: len(model.requests) == 1)
    await sql(chat, "DELETE FROM agent_sessions")
    assert (await posting)["code"] == "not_found"


async def test_what_was_claimed_and_forgotten_is_claimed_again(start: Start, model: ModelServer) -> None:
    """The client of a stop has left between the claim and its use, say."""
    model.play([lambda _: asyncio.sleep(30)])
    chat = await start()
    accepted = await chat.post("hi", status=202, headers={"Prefer": "respond-async"})
    (run,) = chat.turns.running.values()
    turn = await chat.turns.repo.claim_turn(run.turn, chat.turns.boot_id)
    assert turn is not None
    run.lose()
    await until(lambda: not chat.turns.running)
    await sql(chat, "UPDATE agent_turns SET lease_until = now() + interval '9 seconds'")
    received = await chat.attach(accepted["session_id"], f"{accepted['turn_id']}.1")
    assert received[-1].data["status"] == "complete"


async def test_a_turn_that_can_not_be_taken_over_holds_up_no_other(start: Start, model: ModelServer) -> None:
    model.play([lambda _: asyncio.sleep(30)] * 2)
    one = await start()
    broken, other = [await one.post("hi", status=202, headers={"Prefer": "respond-async"}) for _ in range(2)]
    await sql(one, "UPDATE agent_events SET data = 'nonsense' WHERE turn_id = $1", broken["turn_id"])
    await sql(one, f"UPDATE agent_turns SET {ORPHANED}")
    two = await start()
    received = await two.attach(other["session_id"], f"{other['turn_id']}.1")
    assert received[-1].kind == "done"


async def test_a_definite_no_leaves_the_connections_alone(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock timeout is an answer: nothing is in doubt, nothing has to be undone."""
    session = (await chat.session())["session_id"]
    repo, ended = chat.turns.repo, []
    monkeypatch.setattr(repo, "abandon_turn", lambda *values: ended.append(values))
    async with repo.connection() as conn, conn.transaction():
        await conn.execute("LOCK TABLE agent_sessions IN ACCESS EXCLUSIVE MODE")
        await chat.post("hi", session, status=503)
    assert not ended


async def test_a_doubtful_begin_that_another_process_has_taken_over_stays(chat: Chat) -> None:
    repo, turns = chat.turns.repo, chat.turns
    request, turn = TurnRequest("anonymous", None, 7, "hi", "k-1"), new_turn(None)
    await repo.begin_turn(request, turn, turns.boot_id, "{}")
    assert await repo.claim_turn(turn, uuid.uuid4())
    assert not await repo.abandon_turn(request, turn, 999_999)
    assert await sql(chat, "SELECT count(*) FROM agent_idempotency_keys") == 1
    assert await sql(chat, "SELECT count(*) FROM agent_messages") == 1
