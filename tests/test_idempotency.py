"""Idempotency keys: the same key and body start nothing new, whatever came in between."""

import asyncio
from typing import Any

import aiohttp
import pytest

from chatd.config import Config
from chatd.errors import InDoubt
from chatd.models import TurnRequest, new_turn
from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.model_server import ModelServer, fails, says
from tests.sse_client import Event, read_all, text_of
from tests.test_recovery import sql


def key(value: str = "k-1") -> dict[str, str]:
    return {"Idempotency-Key": value}


async def post(chat: Chat, message: str = "hi", session: str | None = None, **options: Any) -> tuple[bool, Any]:
    """Return whether the answer is a replay, and its body with its status."""
    request = {"json": chat.body(message, session), "headers": key()} | options
    async with chat.client.post("/agent/chat", **request) as response:
        replayed = response.headers.get("Idempotency-Replayed") == "true"
        return replayed, {"http": response.status} | await response.json(content_type=None)


async def post_stream(chat: Chat, session: str | None = None) -> tuple[aiohttp.ClientResponse, list[Event]]:
    async with chat.client.post("/agent/chat/stream", json=chat.body("hi", session), headers=key()) as response:
        assert response.status == 200
        return response, await read_all(response)


@pytest.mark.parametrize("named", [True, False])
async def test_fifty_racing_posts_are_one_turn(chat: Chat, model: ModelServer, named: bool) -> None:
    model.default = says(*"abcdef", delay=0.05)
    session = (await chat.session())["session_id"] if named else None
    answers = await asyncio.gather(*(post(chat, "hi", session) for _ in range(50)))
    assert {answer["turn_id"] for _, answer in answers} == {answers[0][1]["turn_id"]}
    assert all(answer == answers[0][1] for _, answer in answers)
    assert answers[0][1]["message"]["content"] == "abcdef"
    assert sum(replayed for replayed, _ in answers) == 49
    assert len(model.requests) == 1
    assert await sql(chat, "SELECT count(*) FROM agent_sessions") == 1
    assert await sql(chat, "SELECT message_count FROM agent_sessions") == 2


async def test_racing_at_two_processes(start: Start, config: Config, model: ModelServer) -> None:
    model.default = says(*"abcdef", delay=0.05)
    chats = [await start(), await start(data_dir=config.data_dir / "two")]
    answers = await asyncio.gather(*(post(chats[n % 2]) for n in range(20)))
    assert all(answer == answers[0][1] for _, answer in answers)
    assert len(model.requests) == 1


async def test_a_stream_is_given_again_from_its_first_event(chat: Chat, model: ModelServer) -> None:
    model.default = says(*"abcdef", delay=0.05)
    streams = await asyncio.gather(*(post_stream(chat) for _ in range(5)))
    _, first = streams[0]
    assert text_of(first) == "abcdef"
    assert all(received == first for _, received in streams)
    again, received = await post_stream(chat)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert received == first
    replayed, answer = await post(chat)
    assert replayed
    assert answer["message"]["content"] == "abcdef"


async def test_a_stream_whose_events_were_swept_is_given_as_a_reset(chat: Chat) -> None:
    _, first = await post_stream(chat)
    await sql(chat, "DELETE FROM agent_events")
    _, received = await post_stream(chat)
    assert received == [Event({"type": "reset", "text": "Hello, world."}, first[-2].id), first[-1]]


async def test_another_body_is_a_mistake(chat: Chat) -> None:
    _, first = await post(chat)
    for body in (chat.body("ho"), chat.body("hi", first["session_id"]), chat.body("hi", character_id=8)):
        _, problem = await post(chat, json=body)
        assert (problem["http"], problem["code"]) == (422, "idempotency_mismatch")
    assert await sql(chat, "SELECT count(*) FROM agent_messages") == 2


@pytest.mark.parametrize("name", ["k-1", "x" * 255])
async def test_a_key_may_stand_in_quotes(chat: Chat, name: str) -> None:
    _, first = await post(chat, headers=key(name))
    assert first["http"] == 200
    assert await post(chat, headers=key(f'"{name}"')) == (True, first)


@pytest.mark.parametrize("bad", ["", '""', "x" * 256, "a b", "é", '"k'])
async def test_what_is_no_key(chat: Chat, bad: str) -> None:
    _, problem = await post(chat, headers=key(bad))
    assert (problem["http"], list(problem["errors"])) == (400, ["Idempotency-Key"])


async def test_a_failed_turn_repeats_its_failure(chat: Chat, model: ModelServer) -> None:
    model.play([fails(400)])
    first, again = await post(chat), await post(chat)
    assert first[1]["http"] == 502
    assert again == (True, first[1])
    assert len(model.requests) == 1


@pytest.mark.parametrize("named", [True, False])
async def test_a_deleted_session_does_not_free_its_keys(chat: Chat, model: ModelServer, named: bool) -> None:
    session = (await chat.session())["session_id"] if named else None
    _, first = await post(chat, "hi", session)
    await chat.call("DELETE", f"/agent/session/{first['session_id']}", 204)
    _, problem = await post(chat, "hi", session)
    assert problem["http"] == 404
    assert len(model.requests) == 1


async def test_a_refused_request_does_not_take_its_key(chat: Chat, model: ModelServer) -> None:
    model.default = says(*"abc", delay=0.2)
    session = (await chat.session())["session_id"]
    other = asyncio.create_task(chat.post("first", session))
    await until(lambda: len(model.requests) == 1)
    _, problem = await post(chat, "hi", session)
    assert problem["code"] == "turn_in_progress"
    await other
    replayed, answer = await post(chat, "hi", session)
    assert (replayed, answer["http"]) == (False, 200)
    assert len(model.requests) == 2


async def test_a_key_is_its_owners(chat: Chat) -> None:
    _, first = await post(chat)
    turns = chat.turns
    other = TurnRequest("somebody else", None, 7, "hi", "k-1")
    turn, replayed, _ = await turns.begin(other)
    assert not replayed
    assert turn.id != first["turn_id"]


async def test_a_doubtful_begin_that_somebody_was_told_of_stays(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit was made, its answer lost: 503; a repeat comes before the turn can be undone."""
    repo = chat.turns.repo
    begin, abandon = repo.begin_turn, repo.abandon_turn
    replayed = asyncio.Event()

    async def lose_the_answer(*values: Any) -> None:
        await begin(*values)
        raise InDoubt(backend=999_999)

    async def abandon_later(*values: Any) -> bool:
        await replayed.wait()
        return await abandon(*values)

    monkeypatch.setattr(repo, "begin_turn", lose_the_answer)
    monkeypatch.setattr(repo, "abandon_turn", abandon_later)
    _, problem = await post(chat)
    assert problem["http"] == 503
    monkeypatch.setattr(repo, "begin_turn", begin)
    again = asyncio.create_task(post(chat))
    async with asyncio.timeout(5):
        while not await sql(chat, "SELECT replayed FROM agent_idempotency_keys"):
            await asyncio.sleep(0.01)
    replayed.set()
    was_replayed, answer = await again
    assert was_replayed
    assert answer["message"]["content"] == "Hello, world."
    assert (await chat.history(answer["session_id"]))["message_count"] == 2


async def test_a_doubtful_begin_frees_its_key(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = chat.turns.repo
    begin = repo.begin_turn

    async def lose_the_answer(*values: Any) -> None:
        await begin(*values)
        raise InDoubt(backend=999_999)

    monkeypatch.setattr(repo, "begin_turn", lose_the_answer)
    assert (await post(chat))[1]["http"] == 503
    await until(lambda: not chat.turns.running)
    monkeypatch.undo()
    assert await sql(chat, "SELECT count(*) FROM agent_idempotency_keys") == 0
    assert await sql(chat, "SELECT count(*) FROM agent_sessions") == 0
    replayed, answer = await post(chat)
    assert (replayed, answer["http"]) == (False, 200)


async def test_a_key_that_was_undone_in_between_is_new(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unique index refuses, and when one looks the key is gone: the turn begins after all."""
    turns = chat.turns
    request = TurnRequest("anonymous", None, 7, "hi", "k-1")
    other = new_turn(None)
    await turns.repo.begin_turn(request, other, turns.boot_id, "{}")
    refused = turns.repo.replay_key

    async def undone(owner: str, name: str) -> Any:
        await turns.repo.abandon_turn(request, other, 999_999)
        return await refused(owner, name)

    monkeypatch.setattr(turns.repo, "replay_key", undone)
    turn, replayed, _ = await turns.begin(request)
    assert not replayed
    assert turn.id != other.id
