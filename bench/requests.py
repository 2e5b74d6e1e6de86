"""Workloads that ask and wait for the answer."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import aiohttp

from bench import filling
from bench.meter import Meter, delays_of
from bench.processes import end, free_port, usage, wait_for_port
from bench.results import Figures
from bench.servers import Server
from bench.streams import warm_up
from chatd.middlewares import ANONYMOUS
from chatd.models import Answer, TurnRequest, new_turn
from chatd.repo import Repo, open_repo

CONCURRENCY = {1: 300, 64: 3000}  # turns at once: turns in all
HISTORY_ROUNDS = 200
DATABASE_ROUNDS = 300
START_ROUNDS = 5


async def turns(server: Server, concurrency: int) -> Figures:
    """Short answers waited for, not streamed, each worker in a session of its own."""
    await warm_up(server)
    count = CONCURRENCY[concurrency]
    async with client(server) as session:
        took: list[float] = []
        meter = Meter(server)
        workers = [post_turns(session, None, count // concurrency, took) for _ in range(concurrency)]
        await asyncio.gather(*workers)
    return meter.figures("turn", len(took)) | delays_of(took)


async def post_turns(session: aiohttp.ClientSession, session_id: str | None, count: int, took: list[float]) -> None:
    for _ in range(count):
        body = {"message": "pieces=4 rate=0", "character_id": 1, "session_id": session_id}
        begun = time.monotonic()
        async with session.post("/agent/chat", json=body) as response:
            answer = await response.json()
            if response.status != 200:
                raise RuntimeError(str(answer))
        took.append((time.monotonic() - begun) * 1000)
        session_id = answer["session_id"]


def client(server: Server) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(server.urls[0], connector=aiohttp.TCPConnector(limit=0))


async def long_session(server: Server, size: int) -> Figures:
    """A turn in a session of many messages. chatd sends 2,000 tokens of it upstream at most, the peer everything."""
    assert server.dsn is not None
    session_id = await filling.one_session(server.name, server.dsn, size)
    await warm_up(server)
    took: list[float] = []
    async with client(server) as session:
        await post_turns(session, session_id, 20, [])
        await post_turns(session, session_id, 100, took)
    return delays_of(took)


async def history(server: Server, size: int) -> Figures:
    """The latest 100 messages of a session of some size, in a database of its messages and many others."""
    assert server.dsn is not None
    session_id = await filling.one_session(server.name, server.dsn, size)
    await warm_up(server)
    return await read_history(server, session_id)


async def read_history(server: Server, session_id: str) -> Figures:
    took: list[float] = []
    async with client(server) as session:
        for n in range(HISTORY_ROUNDS + 20):
            begun = time.monotonic()
            async with session.get(f"/agent/chat/history/{session_id}", params={"limit": "100"}) as response:
                await response.read()
                response.raise_for_status()
            if n >= 20:
                took.append((time.monotonic() - begun) * 1000)
    return delays_of(took)


async def full_database(server: Server, size: int) -> Figures:
    """The same in a small session, turns too, while the database holds many messages of others."""
    assert server.dsn is not None
    await filling.many_sessions(server.name, server.dsn, size)
    session_id = await filling.one_session(server.name, server.dsn, 100)
    await warm_up(server)
    figures = {f"history {name}": value for name, value in (await read_history(server, session_id)).items()}
    took: list[float] = []
    async with client(server) as session:
        await post_turns(session, session_id, 150, took)
    return figures | delays_of(took[50:], "turn ")


async def database(server: Server, _: int) -> Figures:
    """What a turn asks of the database, its pieces aside, one turn at a time."""
    assert server.dsn is not None
    took: dict[str, list[float]] = {"begin": [], "context": [], "finish": []}
    async with open_repo(server.dsn, 1) as repo:
        for n in range(DATABASE_ROUNDS + 20):
            for name, seconds in (await one_turn(repo)).items():
                if n >= 20:
                    took[name].append(seconds * 1000)
    whole = [sum(parts) for parts in zip(*took.values(), strict=True)]
    return {f"{name} p50 ms": statistics.median(values) for name, values in took.items()} | delays_of(whole, "turn ")


async def one_turn(repo: Repo) -> dict[str, float]:
    turn = new_turn(None)
    request = TurnRequest(ANONYMOUS, None, 1, "hello")
    answer = Answer("done", "Hello, world.", "{}", 2, model="model", token_usage={"output_tokens": 7})
    return {
        "begin": await timed(lambda: repo.begin_turn(request, turn, uuid4(), "{}")),
        "context": await timed(lambda: repo.list_context(turn.session_id, None, 500)),
        "finish": await timed(lambda: repo.finish_turn(turn, answer, [(2, "{}")])),
    }


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await call()
    return time.perf_counter() - begun


async def start(server: Server, _: int) -> Figures:
    """From a process's start to its being ready, on a database that exists, and what it holds in memory then."""
    took, memory = [], []
    for _ in range(START_ROUNDS):
        with tempfile.TemporaryDirectory() as directory:
            port = free_port()
            environment = server.environment | {"CHATD_PORT": str(port), "CHATD_DATA_DIR": directory}
            begun = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *server.command, env=environment, stderr=asyncio.subprocess.DEVNULL
            )
            await wait_for_port(process, port, Path(directory) / "log")
            took.append(time.monotonic() - begun)
            await asyncio.sleep(3)  # what is imported behind the open port, too
            memory.append(usage(process.pid).memory / 1e6)
            await end(process)
    return {"ready s": statistics.median(took), "worst ready s": max(took), "memory MB": statistics.median(memory)}
