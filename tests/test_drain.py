"""SIGTERM: what runs gets some time, what is left goes on elsewhere, and nobody is let down."""

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from chatd.config import Config
from chatd.embedded import Postgres
from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.model_server import Exchange, ModelServer, says
from tests.server_process import ServerProcess, serving
from tests.sse_client import Event, events, read_all, text_of
from tests.test_hostile import family, tell
from tests.test_metrics import scrape
from tests.test_stop import begin, one_two, read_until_two, stop

LAST_FRAME = re.compile(rb"\n\nretry: (\d+)\n\n$")


@pytest.fixture
async def server(tmp_path: Path, model: ModelServer) -> AsyncIterator[ServerProcess]:
    server = ServerProcess(CHATD_DATA_DIR=str(tmp_path), ANTHROPIC_BASE_URL=model.url, CHATD_DRAIN_TIMEOUT="1")
    yield server
    await server.kill()


async def close(chat: Chat) -> None:
    """Shut a chatd of this process down."""
    await chat.client.server.close()


async def test_those_who_wait_are_told_where_to_go_on(start: Start, config: Config, model: ModelServer) -> None:
    """A waiting POST gets its 202, a reader a time to come back at; another process has gone on by then."""
    model.play([one_two])
    model.default = says(" three")
    one, two = await start(), await start(data_dir=config.data_dir / "two")
    session = (await one.session())["session_id"]
    posting = asyncio.create_task(one.post("count", session, status=202))
    await until(lambda: any("".join(run.log.text) == "One two" for run in one.turns.running.values()))
    reading = asyncio.create_task(read_raw(one, session))
    elsewhere = asyncio.create_task(two.attach(session))
    await asyncio.sleep(0.1)
    await close(one)

    accepted = await posting
    assert accepted["status"] == "thinking"
    body = await reading
    match = LAST_FRAME.search(body)
    assert match is not None
    assert 250 <= int(match[1]) < 1750
    begun = time.monotonic()
    received = await elsewhere
    assert time.monotonic() - begun < 5
    assert text_of(received) == "One two three"
    assert [event.seq for event in received] == list(range(1, len(received) + 1))


async def read_raw(chat: Chat, session: str) -> bytes:
    async with chat.attaching(session) as response:
        return await response.read()


async def test_one_that_follows_is_sent_away_at_once(start: Start, config: Config, model: ModelServer) -> None:
    model.default = one_two
    one, two = await start(), await start(data_dir=config.data_dir / "two")
    accepted = await begin(one)
    following = asyncio.create_task(read_raw(two, accepted["session_id"]))
    await asyncio.sleep(0.2)
    await close(two)
    assert LAST_FRAME.search(await following)
    await close(one)


async def test_what_ends_in_time_ends_here(start: Start, model: ModelServer) -> None:
    model.default = says(*"abcdef", delay=0.1)
    chat = await start(drain_timeout=20)
    posting = asyncio.create_task(chat.post("hi"))
    streaming = asyncio.create_task(chat.stream("hi"))
    await until(lambda: len(model.requests) == 2)
    begun = time.monotonic()
    await close(chat)
    assert time.monotonic() - begun < 10
    assert (await posting)["message"]["content"] == "abcdef"
    assert (await streaming)[-1].kind == "done"


async def test_readyz_says_so(start: Start, model: ModelServer) -> None:
    model.default = one_two
    chat = await start(drain_timeout=1)
    await begin(chat)
    assert (await chat.call("GET", "/readyz"))["status"] == "ok"
    draining = asyncio.create_task(chat.turns.drain())
    await asyncio.sleep(0.1)
    async with chat.client.get("/readyz") as response:
        assert response.status == 503
        assert (await response.json())["checks"]["draining"] == "yes"
    await draining
    problem = await chat.post("too late", status=503)
    assert problem["code"] == "unavailable"


async def test_streams_are_given_while_it_drains(start: Start, model: ModelServer) -> None:
    """An EventSource gives up for good after a 503."""
    chat = await start(drain_timeout=30)
    ended = await chat.stream("hi")
    model.default = one_two
    running = (await begin(chat))["session_id"]
    draining = asyncio.create_task(chat.turns.drain())
    await until(lambda: chat.turns.draining)
    assert text_of(await read_until_two(chat, running)) == "One two"
    session = ended[0].data["session_id"]
    assert await chat.attach(session, ended[0].id) == ended[1:]
    await chat.attach(session, ended[-1].id, 204)
    await stop(chat, running)
    await draining


@asynccontextmanager
async def kept_while_draining(server: ServerProcess, model: ModelServer) -> AsyncIterator[Chat]:
    """Yield a client on a connection that is kept, while the server ends with a turn that is waited for."""
    model.default = one_two
    url = await server.start()
    async with aiohttp.ClientSession(url) as client, aiohttp.ClientSession(url) as other:
        late = Chat(other)
        await late.call("GET", "/readyz")
        posting = asyncio.create_task(Chat(client).post("count", status=202))
        await until(lambda: len(model.requests) == 1)
        ending = asyncio.create_task(server.end(signal.SIGTERM))
        await asyncio.sleep(0.2)
        yield late
        await posting
        assert await ending == 0


async def test_a_connection_that_is_kept_is_served_to_the_end(server: ServerProcess, model: ModelServer) -> None:
    """Nobody new is let in; who is in hears of it, and what is posted in the last moment is not lost."""
    async with kept_while_draining(server, model) as late:
        async with late.client.get("/readyz") as response:
            assert (response.status, response.headers["Connection"]) == (503, "close")
        with pytest.raises(aiohttp.ClientConnectorError):
            await late.call("GET", "/readyz")
    assert "Traceback" not in server.log


async def test_what_is_posted_on_a_kept_connection_is_handed_over(server: ServerProcess, model: ModelServer) -> None:
    async with kept_while_draining(server, model) as late:
        accepted = await late.post("in the last moment", status=202)
    model.default = says(" three")
    async with serving(server) as chat:
        async with asyncio.timeout(10):
            while (history := await chat.history(accepted["session_id"]))["message_count"] < 2:
                await asyncio.sleep(0.05)
    assert history["messages"][1]["content"] == "One two three"


async def test_it_ends_in_time_with_a_frozen_database(
    server: ServerProcess, postgres: Postgres, model: ModelServer
) -> None:
    model.default = one_two
    server.environment["DATABASE_URL"] = postgres.dsn()
    async with serving(server) as chat:
        accepted = await begin(chat)
        reading = asyncio.create_task(read_raw(chat, accepted["session_id"]))
        await asyncio.sleep(0.5)
        assert postgres.process is not None
        pids = family(postgres.process.pid)
        tell(pids, signal.SIGSTOP)
        try:
            await asyncio.sleep(0.5)
            begun = time.monotonic()
            assert await server.end(signal.SIGTERM) == 0
            assert time.monotonic() - begun < 6
        finally:
            tell(pids, signal.SIGCONT)
        assert LAST_FRAME.search(await reading)


async def test_500_streams_are_gone_in_time(server: ServerProcess, model: ModelServer) -> None:
    async def for_ever(exchange: Exchange) -> None:
        await exchange.start()
        while True:
            await exchange.text("word ")
            await asyncio.sleep(0.5)

    model.default = for_ever
    url = await server.start()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector) as client:
        chat = Chat(client)
        turns = [await begin(chat) for _ in range(10)]
        bodies = [asyncio.create_task(read_raw(chat, turn["session_id"])) for turn in turns for _ in range(50)]
        async with asyncio.timeout(30):
            while (await scrape(chat))("chatd_streams_open") < 500:
                await asyncio.sleep(0.1)
        begun = time.monotonic()
        assert await server.end(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 6
        ends = [LAST_FRAME.search(await body) for body in bodies]
    assert all(ends)
    assert len({end[1] for end in ends if end}) > 100, "they all come back at the same time"
    assert "Traceback" not in server.log


async def test_a_restart_goes_on_at_once(server: ServerProcess, model: ModelServer) -> None:
    """What was released is taken over by the process that starts next, with the text that it had."""
    model.play([one_two])
    model.default = says(" three")
    server.environment["CHATD_DRAIN_TIMEOUT"] = "0.1"
    async with serving(server) as chat:
        received: list[Event] = []
        async with chat.streaming("count") as response:
            async for event in events(response):
                received.append(event)
                if text_of(received) == "One two":
                    ending = asyncio.create_task(server.end(signal.SIGTERM))
        assert await ending == 0
    async with serving(server) as chat, chat.attaching(received[0].data["session_id"], received[-1].id) as response:
        received += await read_all(response)
    assert text_of(received) == "One two three"
    assert [event.seq for event in received] == list(range(1, len(received) + 1))


async def test_waiting_for_a_database_ends_with_the_process(start: Start) -> None:
    """A reader that waits for the database to come back is told to come back itself."""
    chat = await start()
    session = (await chat.post("hi"))["session_id"]
    await chat.turns.repo.pool.close()
    reading = asyncio.create_task(read_raw(chat, session))
    await asyncio.sleep(0.3)
    await close(chat)
    assert LAST_FRAME.search(await reading)


async def test_the_test_stream_ends_with_the_process(start: Start) -> None:
    chat = await start(heartbeat=20)
    async with chat.client.get("/agent/stream-test") as response:
        await response.content.readuntil(b'"number":10')
        begun = time.monotonic()
        closing = asyncio.create_task(close(chat))
        assert LAST_FRAME.search(await response.read())
        assert time.monotonic() - begun < 5
        await closing
