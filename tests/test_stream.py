"""Readers that come, go and come back: no gap, no repeat, whatever their cursor."""

import asyncio
import json
import random
import time
from datetime import datetime
from typing import Any

import pytest

from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.model_server import Exchange, ModelServer, says
from tests.sse_client import Event, events, read_all, text_of
from tests.token_provider import SECRET, bearer, token


async def begin(chat: Chat, message: str = "hi") -> str:
    accepted = await chat.post(message, status=202, headers={"Prefer": "respond-async"})
    return str(accepted["session_id"])


async def read_with_drops(chat: Chat, session: str, chance: random.Random) -> list[Event]:
    """Read a turn to its end over many connections, each dropped somewhere."""
    received: list[Event] = []
    while not received or received[-1].kind != "done":
        cursor = received[-1].id if received else None
        left = chance.randrange(1, 400)
        async with chat.attaching(session, cursor) as response:
            async for event in events(response):
                received.append(event)
                left -= 1
                if left == 0:
                    response.close()
                    break
    return received


async def test_twenty_readers_that_drop_at_random_end_with_the_saved_text(chat: Chat, model: ModelServer) -> None:
    pieces = [f"t{n:04} " for n in range(2000)]
    model.default = says(*pieces, delay=0.0005)
    session = await begin(chat)
    readers = [read_with_drops(chat, session, random.Random(seed)) for seed in range(20)]
    received = await asyncio.gather(*readers)

    for one in received:
        assert [event.seq for event in one] == list(range(1, len(one) + 1))
        assert text_of(one) == "".join(pieces)
    message = (await chat.history(session))["messages"][1]
    assert message["content"] == "".join(pieces)


async def test_without_a_turn_there_is_nothing_to_stream(chat: Chat) -> None:
    session = (await chat.session())["session_id"]
    for cursor in (None, "nonsense"):
        assert await chat.attach(session, cursor, status=204) == []
    await chat.post("hi", session)
    await chat.attach(session, status=204)


async def test_a_cursor_of_a_finished_turn_gets_the_rest_and_then_204(chat: Chat) -> None:
    received = await chat.stream("hi")
    session, last = received[0].data["session_id"], received[-1]

    for event in received[:-1]:
        rest = await chat.attach(session, event.id)
        assert rest == received[event.seq :]
    await chat.attach(session, last.id, status=204)

    await chat.stream("again", session)
    assert (await chat.attach(session, received[0].id)) == received[1:]


async def test_the_cursor_may_stand_in_the_query_and_the_header_wins(chat: Chat) -> None:
    received = await chat.stream("hi")
    session = received[0].data["session_id"]
    path = f"/agent/chat/stream/{session}"
    async with chat.client.get(path, params={"last_event_id": received[0].id}) as response:
        assert await read_all(response) == received[1:]
    headers = {"Last-Event-ID": received[-1].id}
    async with chat.client.get(path, params={"last_event_id": received[0].id}, headers=headers) as response:
        assert response.status == 204


TURN = "turn-" + "0" * 32
BAD_CURSORS = [
    "nonsense",
    "0",
    "-1",
    TURN,
    f"{TURN}.1",
    f"{TURN}.-1",
    f"{TURN}." + "9" * 400,
    "x" * 4000,
    "é",
    "a b",
    "%00",
]


@pytest.mark.parametrize("cursor", BAD_CURSORS)
async def test_a_cursor_that_can_not_be_honoured_resets_to_the_last_turn(chat: Chat, cursor: str) -> None:
    first = await chat.stream("hi")
    session = first[0].data["session_id"]
    last = await chat.stream("again", session)

    received = await chat.attach(session, cursor)
    assert received == [Event({"type": "reset", "text": "Hello, world."}, last[-2].id), last[-1]]


async def test_future_and_foreign_cursors_reset(chat: Chat) -> None:
    mine, other = await chat.stream("hi"), await chat.stream("hi")
    session, turn = mine[0].data["session_id"], mine[0].data["turn_id"]
    for cursor in (f"{turn}.{mine[-1].seq + 1}", f"{turn}.0", other[1].id):
        received = await chat.attach(session, cursor)
        assert [event.kind for event in received] == ["reset", "done"]


async def test_a_bad_cursor_in_a_running_turn_resets_to_its_text_and_goes_on(chat: Chat, model: ModelServer) -> None:
    more = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("One ", "two ")
        await more.wait()
        await exchange.text("three")
        await exchange.stop()

    model.play([script])
    async with chat.streaming("hi") as response:
        source = events(response)
        seen = [await anext(source)]
        while text_of(seen) != "One two ":
            seen.append(await anext(source))
        async with chat.attaching(seen[0].data["session_id"], "nonsense") as other:
            others = events(other)
            reset = await anext(others)
            assert reset == Event({"type": "reset", "text": "One two "}, seen[-1].id)
            more.set()
            rest = [event async for event in others]
        assert rest == [event async for event in source]
        assert text_of([reset, *rest]) == "One two three"


async def test_a_failed_turn_is_replayed_as_it_was(chat: Chat, model: ModelServer) -> None:
    async def half(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("Half")
        await exchange.event("error", error={})

    model.default = half
    received = await chat.stream("hi")
    session = received[0].data["session_id"]
    assert await chat.attach(session, received[0].id) == received[1:]
    reset, error = await chat.attach(session, "nonsense")
    assert (reset.data["text"], error) == (text_of(received), received[-1])


async def test_swept_events_reset_to_the_saved_message(chat: Chat) -> None:
    received = await chat.stream("hi")
    session = received[0].data["session_id"]
    async with chat.turns.repo.connection() as conn:
        await conn.execute("DELETE FROM agent_events")

    replayed = await chat.attach(session, received[0].id)
    assert replayed == [Event({"type": "reset", "text": "Hello, world."}, received[-2].id), received[-1]]
    await chat.attach(session, received[-1].id, status=204)


async def test_heartbeats_in_silence(start: Start, model: ModelServer) -> None:
    model.default = says("a", "b", delay=0.5)
    chat = await start(heartbeat=0.1)
    await chat.turns.llm.warm_up()
    async with chat.streaming("hi") as response:
        body = await response.read()
    assert 4 <= body.count(b": ping\n\n") <= 15
    assert all(frame.startswith((b"retry:", b"id:", b": ping")) for frame in body.split(b"\n\n")[:-1])


async def test_the_test_stream(start: Start) -> None:
    chat = await start(heartbeat=0.8, rate_streams=1)
    async with chat.client.get("/agent/stream-test") as response:
        assert response.content_type == "text/event-stream"
        head = await response.content.readuntil(b"\n\n")
        await chat.call("GET", "/agent/stream-test", status=429)  # it counts as a stream
        body = await response.read()
    asked = {"type": "request", "http_version": "1.1", "heartbeat": 0.8, "silence": 2.8}
    assert head == b"retry: 1000\ndata: " + json.dumps(asked, separators=(",", ":")).encode() + b"\n\n"
    *numbers, end = [json.loads(frame[6:]) for frame in body.split(b"\n\n")[:-1] if frame != b": ping"]
    assert [event["number"] for event in numbers] == list(range(1, 11))
    assert end == {"type": "end"}
    assert body.endswith(b": ping\n\n: ping\n\n: ping\n\n" + b'data: {"type":"end"}\n\n')
    async with chat.client.get("/agent/stream-test") as response:
        assert response.status == 200  # and no more once it is over


async def test_a_reader_that_does_not_read_is_cut_and_holds_up_nobody(start: Start, model: ModelServer) -> None:
    chat = await start(write_timeout=0.5)
    pieces = ["x" * 50_000] * 200
    model.default = says(*pieces, delay=0.005)
    session = await begin(chat)
    port = chat.client.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
    writer.write(f"GET /agent/chat/stream/{session} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    transport: Any = writer.transport
    await reader.readline()
    transport.pause_reading()
    assert text_of(await chat.attach(session)) == "".join(pieces)
    await asyncio.sleep(0.8)
    transport.resume_reading()
    with pytest.raises(ConnectionError):
        while await reader.read(1 << 20):
            pass
    writer.close()


async def test_http_1_0_without_chunks(chat: Chat) -> None:
    body = json.dumps(chat.body("hi")).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", chat.client.port)
    head = "POST /agent/chat/stream HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.read(-1)
    writer.close()
    assert answer.startswith(b"HTTP/1.0 200")
    assert b'"type":"done"' in answer.split(b"\n\n")[-2]


async def test_deleting_a_session_stops_its_turn(chat: Chat, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.2)
    async with chat.streaming("hi") as response:
        source = events(response)
        start = await anext(source)
        await anext(source)
        await chat.call("DELETE", f"/agent/session/{start.data['session_id']}", 204)
        rest = [event async for event in source]
    assert (rest[-1].kind, rest[-1].data["status"]) == ("done", "stopped")
    await chat.history(start.data["session_id"], status=404)
    await until(lambda: model.gone == model.requests)
    async with chat.turns.repo.connection() as conn:
        for table in ("sessions", "messages", "turns", "events"):
            assert await conn.fetchval(f"SELECT count(*) FROM agent_{table}") == 0


async def test_the_test_stream_ends_with_the_token(start: Start) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET)
    expires = time.time() + 0.6
    async with chat.client.get("/agent/stream-test", headers=bearer(token("alice", exp=expires))) as response:
        numbers = (await response.read()).split(b"\n\n")[1:-1]
    assert 1 <= len(numbers) < 9
    assert all(datetime.fromisoformat(json.loads(frame[6:])["at"]).timestamp() < expires for frame in numbers)
