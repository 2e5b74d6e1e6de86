"""Streams of those that can't send a token, and streams whose token ends."""

import asyncio
import time
from typing import Any

import pytest

from tests.chat_client import CHARACTER, Chat
from tests.conftest import Start
from tests.model_server import ModelServer, says
from tests.sse_client import read_all
from tests.token_provider import SECRET, bearer, token


@pytest.fixture
async def guarded(start: Start) -> Chat:
    return await start(auth="jwt", jwt_secret=SECRET)


async def ticket_for(chat: Chat, session_id: str, given: str, status: int = 201) -> Any:
    body = {"session_id": session_id}
    return await chat.call("POST", "/agent/stream-ticket", status, json=body, headers=bearer(given))


async def session_of(chat: Chat, given: str) -> str:
    body = {"character_id": CHARACTER}
    return str((await chat.call("POST", "/agent/session", 201, json=body, headers=bearer(given)))["session_id"])


async def test_a_ticket_opens_a_sessions_streams_again_and_again(guarded: Chat, model: ModelServer) -> None:
    model.default = says("Hel", "lo", delay=0.1)
    alice = token("alice")
    session = await session_of(guarded, alice)
    ticket = (await ticket_for(guarded, session, alice))["ticket"]
    body = guarded.body("hi", session)
    await guarded.call("POST", "/agent/chat", 202, json=body, headers=bearer(alice) | {"Prefer": "respond-async"})
    path = f"/agent/chat/stream/{session}?ticket={ticket}"
    async with guarded.client.get(path) as response:
        assert response.status == 200
        events = await read_all(response)
    assert events[-1].kind == "done"
    async with guarded.client.get(path, headers={"Last-Event-ID": events[1].id}) as response:
        assert [event.id for event in await read_all(response)] == [event.id for event in events[2:]]


async def test_what_a_ticket_does_not_open(guarded: Chat) -> None:
    alice = token("alice")
    session, other = await session_of(guarded, alice), await session_of(guarded, alice)
    given = await ticket_for(guarded, session, alice)
    ticket = given["ticket"]
    assert given["session_id"] == session
    assert 200 < given["expires_in"] <= 300
    await guarded.call("GET", f"/agent/chat/stream/{session}?ticket={ticket}", 204)
    await guarded.call("GET", f"/agent/chat/stream/{other}?ticket={ticket}", 401)
    for wrong in ("", "x", ticket[:-1], ticket + "x", "%00", "%ff"):
        await guarded.call("GET", f"/agent/chat/stream/{session}?ticket={wrong}", 401)
    for path in (f"/agent/chat/history/{session}", f"/agent/session/{session}", "/agent/sessions"):
        await guarded.call("GET", f"{path}?ticket={ticket}", 401)
    await guarded.call("POST", f"/agent/chat/stop/{session}?ticket={ticket}", 401)
    await guarded.call("GET", f"/agent/chat/stream/{session}?ticket={ticket}", 401, headers=bearer("x"))


async def test_tickets_are_given_for_ones_own_sessions(guarded: Chat) -> None:
    session = await session_of(guarded, token("alice"))
    foreign = await ticket_for(guarded, session, token("bob"), 404)
    assert foreign == await ticket_for(guarded, f"sess-{'0' * 32}", token("bob"), 404)


async def test_a_ticket_is_stored_as_a_hash_and_goes_with_its_session(guarded: Chat) -> None:
    alice = token("alice")
    session = await session_of(guarded, alice)
    ticket = (await ticket_for(guarded, session, alice))["ticket"]
    async with guarded.turns.repo.connection() as conn:
        stored = str(await conn.fetch("SELECT * FROM agent_stream_tickets"))
        assert session in stored
        assert ticket not in stored
        await guarded.call("DELETE", f"/agent/session/{session}", 204, headers=bearer(alice))
        assert await conn.fetch("SELECT * FROM agent_stream_tickets") == []


async def test_a_ticket_lives_from_use_to_use(guarded: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatd.tickets.LIFE", 1.5)
    alice = token("alice")
    session = await session_of(guarded, alice)
    ticket = (await ticket_for(guarded, session, alice))["ticket"]
    for _ in range(4):
        await asyncio.sleep(0.5)
        await guarded.call("GET", f"/agent/chat/stream/{session}?ticket={ticket}", 204)
    await asyncio.sleep(1.7)
    await guarded.call("GET", f"/agent/chat/stream/{session}?ticket={ticket}", 401)
    assert await guarded.turns.repo.sweep_tickets(10, 0) == 1


@pytest.mark.parametrize(("life", "renewal"), [(0.8, 0.1), (0.8, 0.9)])
async def test_an_open_stream_keeps_its_ticket_alive(
    guarded: Chat, model: ModelServer, monkeypatch: pytest.MonkeyPatch, life: float, renewal: float
) -> None:
    """Renewed late, as after an outage of the database, it lives on, too."""
    monkeypatch.setattr("chatd.tickets.LIFE", life)
    monkeypatch.setattr("chatd.tickets.RENEWAL", renewal)
    model.default = says("Hel", "lo", delay=1.0)
    alice = token("alice")
    session = await session_of(guarded, alice)
    ticket = (await ticket_for(guarded, session, alice))["ticket"]
    headers = bearer(alice) | {"Prefer": "respond-async"}
    await guarded.call("POST", "/agent/chat", 202, json=guarded.body("hi", session), headers=headers)
    async with guarded.client.get(f"/agent/chat/stream/{session}?ticket={ticket}") as response:
        await read_all(response)
    await guarded.call("GET", f"/agent/chat/stream/{session}?ticket={ticket}", 204)


async def test_a_ticket_lives_no_longer_than_its_token(guarded: Chat) -> None:
    alice = token("alice", exp=time.time() + 0.7)
    session = await session_of(guarded, alice)
    ticket = (await ticket_for(guarded, session, alice))["ticket"]
    await guarded.call("GET", f"/agent/chat/stream/{session}?ticket={ticket}", 204)
    await asyncio.sleep(0.8)
    await guarded.call("GET", f"/agent/chat/stream/{session}?ticket={ticket}", 401)


@pytest.mark.parametrize("way", ["post", "token", "ticket"])
async def test_a_stream_ends_with_its_token_and_the_turn_goes_on(guarded: Chat, model: ModelServer, way: str) -> None:
    model.default = says(*(f"{n} " for n in range(20)), delay=0.1)
    lasting, short = token("alice"), token("alice", exp=time.time() + 1)
    session = await session_of(guarded, lasting)
    body = guarded.body("hi", session)
    path = f"/agent/chat/stream/{session}"
    if way == "ticket":
        path += f"?ticket={(await ticket_for(guarded, session, short))['ticket']}"
    if way == "post":
        method, options = "POST", {"json": body, "headers": bearer(short)}
        path = "/agent/chat/stream"
    else:
        method, options = "GET", {"headers": bearer(short) if way == "token" else {}}
        headers = bearer(lasting) | {"Prefer": "respond-async"}
        await guarded.call("POST", "/agent/chat", 202, json=body, headers=headers)
    async with guarded.client.request(method, path, **options) as response:
        seen = await read_all(response)
    assert {event.kind for event in seen} == {"start", "text"}
    assert 2 <= len(seen) < 15
    await guarded.call("GET", f"/agent/chat/stream/{session}", 401, headers=bearer(short))
    async with guarded.client.get(
        f"/agent/chat/stream/{session}", headers=bearer(lasting) | {"Last-Event-ID": seen[-1].id}
    ) as response:
        rest = await read_all(response)
    assert rest[-1].kind == "done"
    text = "".join(event.data["text"] for event in [*seen, *rest] if event.kind == "text")
    assert text == "".join(f"{n} " for n in range(20))
