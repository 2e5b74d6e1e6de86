"""What is measured. Each workload takes a server that has just been started and returns figures by name."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp

from bench import filling
from bench.client import Stream, get, open_stream, open_streams
from bench.processes import end, free_port, usage, wait_for_port
from bench.results import Figures
from bench.servers import Server

RATE = 20.0  # pieces a second of a paced stream
SECONDS = 10.0
PATIENCE = 3.0  # times the ideal duration, then a server is cut off: it does not keep up
FLOOD_STREAMS = 8
FLOOD_PIECES = 20_000
SILENT = 0.01  # pieces a second of a stream that is attached to and says nothing
READERS = 1000
CONCURRENCY = {1: 300, 64: 3000}  # turns at once: turns in all
HISTORY_ROUNDS = 200
START_ROUNDS = 5


class Meter:
    """Weighs a server's processes and its PostgreSQL over a stretch of time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.begun = time.monotonic()
        self.cpu = self._cpu()

    def _cpu(self) -> tuple[float, float]:
        postgres = usage(self.server.postgres).cpu if self.server.postgres else 0.0
        return sum(usage(pid).cpu for pid in self.server.pids), postgres

    def figures(self, unit: str, count: int) -> Figures:
        """Return what a unit of work cost, and how many there were a second."""
        seconds, (server, postgres) = time.monotonic() - self.begun, self._cpu()
        result = {f"{unit}s/s": count / seconds, f"CPU us/{unit}": (server - self.cpu[0]) / count * 1e6}
        if self.server.postgres:
            result[f"PostgreSQL CPU us/{unit}"] = (postgres - self.cpu[1]) / count * 1e6
        return result | {"memory MB": sum(usage(pid).memory for pid in self.server.pids) / 1e6}


def delays_of(values: Sequence[float], name: str = "") -> Figures:
    marks = statistics.quantiles(values, n=100)
    return {f"{name}p50 ms": marks[49], f"{name}p99 ms": marks[98]}


async def warm_up(server: Server) -> None:
    """Have each process answer a few times: imports, connections, prepared statements."""
    for _ in range(3):
        requests = [server.ask(4, 0)] * 8 * len(server.urls)
        streams = await open_streams(server.urls, requests, 0)
        await asyncio.gather(*(stream.over for stream in streams))


async def finish(streams: Sequence[Stream], seconds: float) -> None:
    """Wait for the streams' ends, and cut off those that take longer."""
    await asyncio.wait([stream.over for stream in streams], timeout=seconds)
    for stream in streams:
        stream.close()
    await asyncio.gather(*(stream.over for stream in streams))


async def paced(server: Server, streams: int) -> Figures:
    """Many streams of 20 pieces a second, begun evenly within a second."""
    await warm_up(server)
    pieces = int(RATE * SECONDS)
    meter = Meter(server)
    opened = await open_streams(server.urls, [server.ask(pieces, RATE)] * streams, 1.0)
    await finish(opened, SECONDS * PATIENCE)
    delays = [stream.delays() for stream in opened]
    every = [delay for stream in delays for delay in stream]
    figures = meter.figures("piece", len(every))
    steady = [delay for stream in delays for delay in stream[int(RATE) :]]
    whole = {"complete %": 100 * len(every) / (streams * pieces)}
    return figures | delays_of(every) | delays_of(steady, "after 1 s: ") | whole


async def flood(server: Server, streams: int) -> Figures:
    """A few streams, as fast as they go."""
    await warm_up(server)
    meter = Meter(server)
    opened = await open_streams(server.urls, [server.ask(FLOOD_PIECES, 0)] * streams, 0)
    await finish(opened, 60)
    count = sum(stream.count() for stream in opened)
    return meter.figures("piece", count) | {"complete %": 100 * count / (streams * FLOOD_PIECES)}


async def silent_turn(server: Server) -> tuple[Stream, str]:
    """Begin a turn that says nothing for long, and return its stream and session."""
    turn = await open_stream(server.urls[0], server.ask(2, SILENT))
    return turn, await session_of(turn)


async def session_of(turn: Stream) -> str:
    async with asyncio.timeout(10):
        while (at := b"".join(turn.chunks).find(b'"session_id":"')) < 0:
            await asyncio.sleep(0.01)
    return b"".join(turn.chunks)[at + 14 :].split(b'"')[0].decode()


async def idle(server: Server, readers: int) -> Figures:
    """Readers that are attached to a turn that is silent."""
    await warm_up(server)
    turn, session_id = await silent_turn(server)
    before = usage(server.pids[0])
    opened = await open_streams(server.urls, [get(f"/agent/chat/stream/{session_id}")] * readers, readers / 1000)
    await asyncio.gather(*(stream.begun for stream in opened))
    await asyncio.sleep(1)
    after, begun = usage(server.pids[0]), time.monotonic()
    await asyncio.sleep(5)
    spent = usage(server.pids[0]).cpu - after.cpu
    for stream in [turn, *opened]:
        stream.close()
    return {
        "KiB/reader": (after.memory - before.memory) / readers / 1024,
        "CPU % while idle": 100 * spent / (time.monotonic() - begun),
        "CPU us/attach": (after.cpu - before.cpu) / readers * 1e6,
    }


async def fan_out(server: Server, readers: int) -> Figures:
    """One turn, read by many."""
    await warm_up(server)
    pieces = int(RATE * SECONDS)
    turn = await open_stream(server.urls[0], server.ask(pieces, RATE))
    session_id = await session_of(turn)
    opened = await open_streams(server.urls, [get(f"/agent/chat/stream/{session_id}")] * readers, 1.0)
    await asyncio.gather(*(stream.begun for stream in opened))
    seen = sum(len(b"".join(stream.chunks).split(b"is when")) - 1 for stream in opened)
    meter = Meter(server)
    await finish(opened, SECONDS * PATIENCE)
    delays = [delay for stream in opened for delay in stream.delays()[int(RATE) * 2 :]]
    count = sum(stream.count() for stream in opened)
    whole = {"complete %": 100 * count / (readers * pieces)}
    return meter.figures("frame", count - seen) | delays_of(delays) | whole


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
    """A turn in a session of many messages."""
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


Workload = Callable[[Server, int], Awaitable[Figures]]
# name: the workload, its sizes, and the servers for which it makes sense (none: all)
WORKLOADS: dict[str, tuple[Workload, Sequence[int], Sequence[str]]] = {
    "paced": (paced, (10, 50, 200, 500, 1000), ()),
    "flood": (flood, (FLOOD_STREAMS,), ()),
    "idle": (idle, (1000, 4000), ("chatd",)),
    "fan-out": (fan_out, (READERS,), ("chatd",)),
    "turns": (turns, tuple(CONCURRENCY), ("chatd", "FastAPI")),
    "long session": (long_session, (100, 10_000), ("chatd", "FastAPI")),
    "history": (history, (100, 10_000, 100_000), ("chatd", "FastAPI")),
    "full database": (full_database, (10, 1_000_000), ("chatd",)),
    "start": (start, (1,), ("chatd",)),
}


def describe(name: str) -> str:
    return (WORKLOADS[name][0].__doc__ or "").strip()
