"""What is old is swept, in batches, and nothing else."""

import asyncio

import pytest

from chatd import sweeps
from chatd.background import background
from tests.chat_client import Chat
from tests.conftest import Start
from tests.model_server import ModelServer, says
from tests.test_recovery import sql
from tests.test_stop import begin, one_two

OLD = "UPDATE agent_turns SET ended_at = now() - interval '2 hours' WHERE ended_at IS NOT NULL"


async def test_events_of_ended_turns_after_their_time(
    chat: Chat, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a batch of turns and of events: all go, but those of a turn that runs, or has ended just now."""
    monkeypatch.setattr(sweeps, "EVENTS", 7)
    monkeypatch.setattr(sweeps, "TURNS", 3)
    monkeypatch.setattr(sweeps, "PAUSE", 0)
    model.default = says(*"abcdefghij", delay=0.015)
    old = [await chat.stream("hi") for _ in range(5)]
    await sql(chat, OLD)
    new = await chat.stream("hi")
    model.default = one_two
    running = await begin(chat)
    await sweeps.sweep_once(chat.turns.repo, 3600)

    assert await sql(chat, "SELECT count(DISTINCT turn_id) FROM agent_events") == 2
    assert await sql(chat, "SELECT count(*) FROM agent_turns WHERE swept") == 5
    assert await chat.attach(new[0].data["session_id"], new[0].id) == new[1:]
    for received in old:
        session = received[0].data["session_id"]
        reset, done = await chat.attach(session, received[0].id)
        assert (reset.data, done) == ({"type": "reset", "text": "abcdefghij"}, received[-1])
        assert (await chat.history(session))["message_count"] == 2
    await chat.call("POST", f"/agent/chat/stop/{running['session_id']}")


async def test_a_turn_that_is_half_swept_is_given_whole(chat: Chat, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.015)
    received = await chat.stream("hi")
    await sql(chat, "DELETE FROM agent_events WHERE seq <= 4")
    session = received[0].data["session_id"]
    assert await chat.attach(session, received[3].id) == received[4:]
    assert [event.kind for event in await chat.attach(session, received[2].id)] == ["reset", "done"]


async def test_keys_after_a_day(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "KEYS", 2)
    monkeypatch.setattr(sweeps, "PAUSE", 0)
    for number in range(6):
        await chat.post("hi", headers={"Idempotency-Key": f"k-{number}"})
    age = "CASE key WHEN 'k-5' THEN interval '23 hours' ELSE interval '25 hours' END"
    await sql(chat, f"UPDATE agent_idempotency_keys SET created_at = now() - {age}")
    await sweeps.sweep_once(chat.turns.repo, 3600)
    assert await sql(chat, "SELECT array_agg(key) FROM agent_idempotency_keys") == ["k-5"]


async def test_one_that_never_ends_holds_up_no_other(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "EVENTS", 0)
    await chat.post("hi", headers={"Idempotency-Key": "k"})
    await sql(chat, OLD)
    await sql(chat, "UPDATE agent_idempotency_keys SET created_at = now() - interval '25 hours'")
    async with background(sweeps.sweep_once(chat.turns.repo, 3600)), asyncio.timeout(10):
        while await sql(chat, "SELECT count(*) FROM agent_idempotency_keys"):
            await asyncio.sleep(0.02)


async def test_it_sweeps_by_itself(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "INTERVAL", 0.05)
    chat = await start(event_retention=0.1)
    received = await chat.stream("hi")
    for _ in range(100):
        if not await sql(chat, "SELECT count(*) FROM agent_events"):
            break
        await asyncio.sleep(0.05)
    assert [e.kind for e in await chat.attach(received[0].data["session_id"], received[0].id)] == ["reset", "done"]
