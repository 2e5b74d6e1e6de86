"""Workloads that stream."""

import asyncio
import time
from collections.abc import Sequence

from bench.client import Stream, get, open_stream, open_streams
from bench.meter import Meter, delays_of, wal_position
from bench.processes import usage
from bench.results import Figures
from bench.servers import Server

RATE = 20.0  # pieces a second of a paced stream
SECONDS = 10.0
PATIENCE = 3.0  # times the ideal duration, then a server is cut off: it does not keep up
FLOOD_STREAMS = 8
FLOOD_PIECES = 20_000
SILENT = 0.01  # pieces a second of a stream that is attached to and says nothing


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
    """Many streams of 20 pieces a second, begun within a second."""
    await warm_up(server)
    pieces = int(RATE * SECONDS)
    logged = await wal_position(server) if server.dsn else 0
    meter = Meter(server)
    opened = await open_streams(server.urls, [server.ask(pieces, RATE)] * streams, 1.0)
    await finish(opened, SECONDS * PATIENCE)
    delays = [stream.delays() for stream in opened]
    every = [delay for stream in delays for delay in stream]
    figures = meter.figures("piece", len(every))
    if server.dsn:
        figures["WAL bytes/piece"] = (await wal_position(server) - logged) / len(every)
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
