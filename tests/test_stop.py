"""Stopping a turn: wherever it runs, whenever, as often as one likes."""

import asyncio
import uuid
from typing import Any

import pytest

from chatd.config import Config
from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.model_server import Exchange, ModelServer, fails
from tests.sse_client import Event, events, read_all, text_of
from tests.test_recovery import sql

ASYNC = {"Prefer": "respond-async"}


async def one_two(exchange: Exchange) -> None:
    """Say two words and nothing more, until the client hangs up."""
    await exchange.start()
    await exchange.text("One ", "two")
    while True:
        await exchange.event("ping")
        await asyncio.sleep(0.05)


async def silent(_: Exchange) -> None:
    await asyncio.sleep(30)


async def stop(chat: Chat, session: str, status: int = 200) -> dict[str, object]:
    body: dict[str, object] = await chat.call("POST", f"/agent/chat/stop/{session}", status)
    return body


async def begin(chat: Chat) -> dict[str, str]:
    accepted: dict[str, str] = await chat.post("count", status=202, headers=ASYNC)
    return accepted


async def read_until_two(chat: Chat, session: str) -> list[Event]:
    """Attach and return the events up to the second word; the connection is given up then."""
    received: list[Event] = []
    async with chat.attaching(session) as response:
        async for event in events(response):
            received.append(event)
            if text_of(received) == "One two":
                break
    return received


async def test_what_was_shown_is_saved_and_every_reader_hears_of_it(chat: Chat, model: ModelServer) -> None:
    model.default = one_two
    accepted = await begin(chat)
    session = accepted["session_id"]
    received = await read_until_two(chat, session)
    readers = [asyncio.create_task(chat.attach(session, received[-1].id)) for _ in range(3)]
    await asyncio.sleep(0.1)

    assert await stop(chat, session) == {
        "session_id": session,
        "stopped": True,
        "message_id": accepted["message_id"],
    }
    for reader in readers:
        (done,) = await reader
        assert (done.kind, done.data["status"], done.data["length"]) == ("done", "stopped", 7)
        assert done.seq == received[-1].seq + 1
    history = await chat.history(session)
    assert [(m["content"], m["status"]) for m in history["messages"][1:]] == [("One two", "stopped")]
    assert (history["status"], history["message_count"]) == ("idle", 2)
    await until(lambda: model.gone == model.requests)
    assert await stop(chat, session) == {"session_id": session, "stopped": False, "message_id": None}


async def test_before_the_first_token(chat: Chat, model: ModelServer) -> None:
    model.default = silent
    posting = asyncio.create_task(chat.post("hi"))
    await until(lambda: len(model.requests) == 1)
    (run,) = chat.turns.running.values()
    session = run.turn.session_id
    assert await stop(chat, session) == {"session_id": session, "stopped": True, "message_id": None}
    answer = await posting
    assert (answer["message"], answer["message_id"], answer["status"]) == (None, None, "idle")
    assert (await chat.history(session))["message_count"] == 1
    await chat.session()
    model.default = one_two
    assert (await chat.post("and now?", session, status=202, headers=ASYNC))["session_id"] == session
    await stop(chat, session)


async def test_while_it_waits_for_the_next_attempt(start: Start, model: ModelServer) -> None:
    model.default = fails(529)
    chat = await start(retry_factor=10)
    accepted = await begin(chat)
    await until(lambda: len(model.requests) == 1)
    await asyncio.sleep(0.1)
    assert (await stop(chat, accepted["session_id"]))["stopped"] is True
    assert len(model.requests) == 1


async def stop_together(
    chat: Chat, session: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, object]]:
    """Stop a turn as many times at once: none of them goes on before all of them have seen it run."""
    find, all_of_them = chat.turns.repo.find_latest_turn, asyncio.Barrier(number)

    async def find_together(*values: Any) -> Any:
        turn = await find(*values)
        await all_of_them.wait()
        return turn

    monkeypatch.setattr(chat.turns.repo, "find_latest_turn", find_together)
    return await asyncio.gather(*(stop(chat, session) for _ in range(number)))


async def test_ten_at_once_are_all_told_the_same(
    chat: Chat, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.default = one_two
    accepted = await begin(chat)
    await read_until_two(chat, accepted["session_id"])
    answers = await stop_together(chat, accepted["session_id"], 10, monkeypatch)
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["stopped"] is True
    assert (await chat.history(accepted["session_id"]))["message_count"] == 2


async def test_nothing_to_stop(chat: Chat) -> None:
    session = (await chat.session())["session_id"]
    assert (await stop(chat, session))["stopped"] is False
    await stop(chat, "sess-" + "0" * 32, 404)
    await stop(chat, "nonsense", 404)
    await chat.post("hi", session)
    assert await stop(chat, session) == {"session_id": session, "stopped": False, "message_id": None}


async def two_processes(start: Start, config: Config, **changes: Any) -> tuple[Chat, Chat]:
    return await start(**changes), await start(data_dir=config.data_dir / "two", **changes)


async def begun_elsewhere(
    start: Start, config: Config, model: ModelServer, **changes: Any
) -> tuple[Chat, Chat, str, list[Event]]:
    """Begin a turn at the first of two processes, and return them, its session and its events so far."""
    model.default = one_two
    one, two = await two_processes(start, config, **changes)
    session = (await begin(one))["session_id"]
    return one, two, session, await read_until_two(one, session)


async def test_a_turn_that_another_process_runs(start: Start, config: Config, model: ModelServer) -> None:
    model.default = one_two
    one, two = await two_processes(start, config)
    async with one.streaming("count") as response:
        source = events(response)
        received = [await anext(source)]
        session = received[0].data["session_id"]
        while text_of(received) != "One two":
            received.append(await anext(source))
        there = asyncio.create_task(two.attach(session, received[-1].id))
        await asyncio.sleep(0.1)
        assert (await stop(two, session))["stopped"] is True
        rest = [event async for event in source]
    assert [event.data["status"] for event in rest] == ["stopped"]
    assert await there == rest
    assert await sql(two, "SELECT epoch FROM agent_turns") == 1, "the process that ran it has obeyed"


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_process_that_does_not_obey_loses_its_turn(
    start: Start, config: Config, model: ModelServer, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    monkeypatch.setattr("chatd.turns.OBEY_TIMEOUT", 0.3)
    one, two, session, received = await begun_elsewhere(start, config, model)
    monkeypatch.setattr(type(one.turns), "hear_stop", lambda *_: None)  # for apps to come
    await sql(one, "UPDATE agent_turns SET boot_id = $1, epoch = 2", uuid.uuid4())  # hangs somewhere, lease and all

    if deleted:
        await two.call("DELETE", f"/agent/session/{session}", 204)
        await two.history(session, 404)
        assert await sql(two, "SELECT count(*) FROM agent_events") == 0
        return
    assert await stop(two, session) == {
        "session_id": session,
        "stopped": True,
        "message_id": received[0].data["message_id"],
    }
    (done,) = await two.attach(session, received[-1].id)
    assert done.data["status"] == "stopped"
    assert (await two.history(session))["messages"][1]["content"] == "One two"


async def test_deleting_a_session_whose_turn_runs_elsewhere(start: Start, config: Config, model: ModelServer) -> None:
    model.default = one_two
    one, two = await two_processes(start, config)
    async with one.streaming("count") as response:
        source = events(response)
        session = (await anext(source)).data["session_id"]
        await anext(source)
        await two.call("DELETE", f"/agent/session/{session}", 204)
        rest = [event async for event in source]
    assert rest[-1].data["status"] == "stopped"
    await until(lambda: not one.turns.running)
    assert await sql(one, "SELECT count(*) FROM agent_messages") == 0


async def test_a_stop_that_was_asked_for_holds_for_whoever_takes_the_turn_over(
    start: Start, config: Config, model: ModelServer
) -> None:
    one, two, session, received = await begun_elsewhere(start, config, model)
    orphaned = "boot_id = gen_random_uuid(), lease_until = '-infinity', stop_requested = true"
    await sql(one, f"UPDATE agent_turns SET {orphaned}")
    await two.turns.repo.notify("orphans")
    async with two.attaching(session, received[-1].id) as response:
        rest = await read_all(response)
    assert [event.data["status"] for event in rest] == ["stopped"]
    assert len(model.requests) == 1


async def test_many_stop_a_process_that_hangs(
    start: Start, config: Config, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They don't take the turn from each other."""
    monkeypatch.setattr("chatd.turns.OBEY_TIMEOUT", 0.3)
    one, two, session, _ = await begun_elsewhere(start, config, model)
    await sql(one, "UPDATE agent_turns SET boot_id = $1, epoch = 2", uuid.uuid4())
    answers = await stop_together(two, session, 6, monkeypatch)
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["stopped"] is True
    assert await sql(two, "SELECT epoch FROM agent_turns") == 3


async def test_at_the_process_that_does_not_yet_know_that_it_lost_the_turn(
    start: Start, config: Config, model: ModelServer
) -> None:
    one, two, session, _ = await begun_elsewhere(start, config, model)
    turn = await two.turns.repo.find_latest_turn(session, "anonymous")
    assert turn is not None
    claimed = await two.turns.repo.claim_turn(turn, two.turns.boot_id)
    assert claimed is not None
    await two.turns.take_over(claimed)
    assert (await stop(one, session))["stopped"] is True
    assert (await one.history(session))["messages"][1]["status"] == "stopped"


async def test_notices_are_heard_again_after_the_connection_broke(
    start: Start, config: Config, model: ModelServer
) -> None:
    one, two, session, _ = await begun_elsewhere(start, config, model)
    listening = "FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'LISTEN%'"
    assert await sql(one, f"SELECT count(pg_terminate_backend(pid, 1000)) {listening}") == 2
    async with asyncio.timeout(5):
        while await sql(one, f"SELECT count(*) {listening}") < 2:
            await asyncio.sleep(0.05)
    assert (await stop(two, session))["stopped"] is True
    assert await sql(two, "SELECT epoch FROM agent_turns") == 1, "the process that ran it has heard and obeyed"
