"""Answers through the site file that is deployed, in Debian's nginx and in the current one."""

import asyncio
import signal
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.e2e.nginx.site import NOTHING, Site, deployed
from tests.e2e.scripts import Held, cut, paced, prose, resumed
from tests.model_server import Exchange, ModelServer, Script
from tests.server_process import ServerProcess
from tests.sse_client import Event, events, lines, text_of
from tests.token_provider import SECRET, bearer, token

HEARTBEAT = 0.3  # seconds, in place of 15
TIMES = {"proxy_read_timeout 75s": "proxy_read_timeout 1500ms", "proxy_read_timeout 960s": "proxy_read_timeout 20s"}

Serve = Callable[..., AbstractAsyncContextManager[tuple[Site, Chat]]]


@pytest.fixture
def serve(program: Path, start: Start, tmp_path: Path) -> Serve:
    """Return what runs a chatd that wants tokens, behind the file, and yields it and a client with a token."""

    @asynccontextmanager
    async def serve(changes: Mapping[str, str] = NOTHING, **settings: float) -> AsyncIterator[tuple[Site, Chat]]:
        chat = await start(auth="jwt", jwt_secret=SECRET, **settings)
        site = deployed(tmp_path / "nginx", f"127.0.0.1:{chat.client.port}", program, changes)
        async with site as running, client_of(running) as client:
            yield running, client

    return serve


@asynccontextmanager
async def client_of(site: Site) -> AsyncIterator[Chat]:
    connector = aiohttp.TCPConnector(ssl=False)  # its certificate is nobody's
    async with aiohttp.ClientSession(site.url, headers=bearer(token()), connector=connector) as session:
        yield Chat(session)


async def test_the_first_piece_comes_at_once(serve: Serve, model: ModelServer) -> None:
    delays = []
    async with serve() as (_, chat):
        for _ in range(5):
            held = Held("The first half, ", "and the second.")
            model.play([held])
            begin = time.monotonic()
            async with chat.streaming("hello") as response:
                received = events(response)
                while (await anext(received)).kind != "text":
                    pass
                delays.append(time.monotonic() - begin)
                held.go_on.set()
                assert [event async for event in received][-1].kind == "done"
    assert min(delays) < 0.1  # the machine may be busy with something else, but not each time


def noting(pieces: list[str], sent: list[float], gap: float) -> Script:
    """Return the script of a slow answer, which notes when it says each piece."""

    async def script(exchange: Exchange) -> None:
        await exchange.start()
        for piece in pieces:
            sent.append(time.monotonic())
            await exchange.text(piece)
            await asyncio.sleep(gap)
        await exchange.stop()

    return script


async def test_each_piece_comes_as_it_is_said(serve: Serve, model: ModelServer) -> None:
    """Though the client takes gzip, and nginx is told to compress all that it can."""
    pieces, sent = [f"{number} " for number in range(30)], list[float]()
    model.play([noting(pieces, sent, 0.1)])
    async with serve() as (_, chat), chat.streaming("hello") as response:
        assert "gzip" in response.request_info.headers["Accept-Encoding"]
        assert "Content-Encoding" not in response.headers
        seen = [(event, time.monotonic()) async for event in events(response) if event.kind == "text"]
    assert [event.data["text"] for event, _ in seen] == pieces
    delays = [at - said for (_, at), said in zip(seen, sent, strict=True)]
    assert statistics.median(delays) < 0.05
    assert sum(delay > 0.1 for delay in delays) < 3  # a piece that waited for the next one has waited so long


def silent(seconds: float) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("before, ")
        await asyncio.sleep(seconds)
        await exchange.text("after")
        await exchange.stop()

    return script


async def test_a_long_silence(serve: Serve, model: ModelServer) -> None:
    """All times a fiftieth of what they are: of a heartbeat, and of the five that nginx waits."""
    model.default = silent(4)
    async with serve(TIMES, heartbeat=HEARTBEAT) as (_, chat):
        waiting = asyncio.create_task(chat.post("hello"))
        async with chat.streaming("hello") as response:
            seen = [line async for line in lines(response)]
        assert seen.count(": ping") >= 5
        assert '"type":"done"' in seen[-3] + seen[-2]
        assert (await waiting)["message"]["content"] == "before, after"  # it has said nothing for as long


async def test_a_chatd_that_hangs_is_let_go(serve: Serve, model: ModelServer) -> None:
    """The counterpart: without heartbeats the silence is a cut, and not an end."""
    model.default = silent(4)
    async with serve(TIMES, heartbeat=30) as (_, chat), chat.streaming("hello") as response:
        begin = time.monotonic()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
        assert 1 < time.monotonic() - begin < 3


async def test_a_reload_breaks_no_stream(serve: Serve, model: ModelServer) -> None:
    text = prose(1200)
    model.default = paced(cut(text, 10), rate=40)
    async with serve() as (site, chat):
        running = [asyncio.create_task(chat.stream(f"question {number}")) for number in range(3)]
        await until(lambda: len(model.requests) == 3, 60)
        await asyncio.sleep(0.5)
        old = set(site.workers())
        await site.reload()
        later = asyncio.create_task(chat.stream("a later question"))
        await asyncio.sleep(0.2)
        assert old & set(site.workers())  # who serves them to their end
        for received in await asyncio.gather(*running, later):
            assert received[-1].kind == "done"
            assert text_of(received) == text
        await chat.client.connector.close()  # idle connections are closed by nginx, too, soon
        await until(lambda: not old & set(site.workers()), 30)


@pytest.fixture
def listening(tmp_path: Path) -> socket.socket:
    """Return the Unix socket that systemd would hold."""
    held = socket.socket(socket.AF_UNIX)
    held.bind(str(tmp_path / "http.sock"))
    held.listen(1024)
    return held


@pytest.fixture
async def daemon(
    listening: socket.socket, dsn: str, model: ModelServer, tmp_path: Path
) -> AsyncIterator[ServerProcess]:
    settings = {"CHATD_AUTH": "jwt", "CHATD_JWT_SECRET": SECRET, "CHATD_DATA_DIR": str(tmp_path / "data")}
    settings |= {f"CHATD_RATE_{name}": "0" for name in ("MESSAGES", "TURNS", "STREAMS")}
    with listening:
        server = ServerProcess(listening, **settings, DATABASE_URL=dsn, ANTHROPIC_BASE_URL=model.url)
        await server.start()
        yield server
        if server.process.returncode is None:
            await server.end(signal.SIGTERM)


async def read_until_cut(response: aiohttp.ClientResponse, pieces: int, server: ServerProcess) -> list[Event]:
    """Kill the server after so many events and return all that came."""
    received: list[Event] = []
    with pytest.raises(aiohttp.ClientPayloadError):  # the last chunk is missing
        async for event in events(response):
            received.append(event)
            if len(received) == pieces:
                await server.end(signal.SIGKILL)
    return received


@pytest.mark.parametrize("tls", [False, True])
async def test_a_killed_chatd_is_a_cut_and_no_end(
    program: Path, daemon: ServerProcess, model: ModelServer, tmp_path: Path, tls: bool
) -> None:
    text = prose(1000)
    model.default = resumed(text, rate=60)
    site = deployed(tmp_path / "nginx", f"unix:{tmp_path}/http.sock", program, tls=tls)
    async with site as running, client_of(running) as chat:
        async with chat.streaming("A story.") as response:
            received = await read_until_cut(response, 30, daemon)
        session = received[0].data["session_id"]
        waiting = asyncio.create_task(chat.attach(session, received[-1].id))
        await asyncio.sleep(1)
        assert not waiting.done()  # nobody is there, and yet it is no 502: the socket is held
        await daemon.start()
        received += await waiting
    assert received[-1].kind == "done"
    assert [event.seq for event in received] == list(range(1, len(received) + 1))
    assert text_of(received) == text


async def test_what_http_2_sees_of_it(program: Path, daemon: ServerProcess, model: ModelServer, tmp_path: Path) -> None:
    """A stream that is reset, which is no end, either; and that it is HTTP/2."""
    model.default = paced(cut(prose(2000), 10), rate=20)
    async with deployed(tmp_path / "nginx", f"unix:{tmp_path}/http.sock", program, tls=True) as site:
        arguments = ["-skN", "--http2", "-w", "%{http_version}", f"{site.url}/agent/chat/stream"]
        body = ["-H", f"Authorization: Bearer {token()}", "--json", '{"message": "A story.", "character_id": 7}']
        curl = await asyncio.create_subprocess_exec("curl", *arguments, *body, stdout=asyncio.subprocess.PIPE)
        assert curl.stdout is not None
        seen = await curl.stdout.readuntil(b'"type":"text"')
        await daemon.end(signal.SIGKILL)
        rest = await curl.stdout.read()
        assert await curl.wait() == 92  # a stream was not closed cleanly
        assert seen.startswith(b"retry: 1000\n")
        assert rest.endswith(b"2")


async def whole_answer(chat: Chat) -> str:
    received = await chat.stream("hello")
    while received[-1].kind != "done":  # sent away by a process that ends
        received += await chat.attach(received[0].data["session_id"], received[-1].id)
    return text_of(received)


async def test_restarts_under_load(program: Path, daemon: ServerProcess, model: ModelServer, tmp_path: Path) -> None:
    """No request fails, and no answer breaks."""
    text = prose(200)
    model.default = resumed(text, rate=40)
    answers: list[str] = []
    ending = asyncio.Event()

    async def ask(chat: Chat) -> None:
        while not ending.is_set():
            answers.append(await whole_answer(chat))

    async with deployed(tmp_path / "nginx", f"unix:{tmp_path}/http.sock", program) as site, client_of(site) as chat:
        callers = [asyncio.create_task(ask(chat)) for _ in range(20)]
        for number in range(1, 5):
            await until(lambda: len(answers) >= 15 * number, 60)  # noqa: B023 - it is over by the next round
            assert await daemon.end(signal.SIGTERM) == 0
            await daemon.start()
        ending.set()
        await asyncio.gather(*callers)
    assert set(answers) == {text}
