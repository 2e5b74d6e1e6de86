"""Measure chatd with many paced streams: delay from the model server's write to the client's read, CPU a piece.

Model server, chatd with its embedded PostgreSQL, and the clients are processes of their own on this one machine.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.server_process import ServerProcess

SENT = re.compile(r"(\d{10,}) is when")
TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--streams", type=int, default=200, help="streams at once (default: 200)")
    parser.add_argument("--rate", type=float, default=20, help="pieces a second of each (default: 20)")
    parser.add_argument("--pieces", type=int, default=200, help="pieces of each (default: 200)")
    asyncio.run(measure(**vars(parser.parse_args())))


async def measure(streams: int, rate: float, pieces: int) -> None:
    async with model_server(pieces, rate) as url:
        with tempfile.TemporaryDirectory() as data:
            server = ServerProcess(CHATD_DATA_DIR=data, ANTHROPIC_BASE_URL=url)
            base = await server.start()
            postmaster = int((Path(data) / "postgres/pgdata/postmaster.pid").read_text().split()[0])
            try:
                await run(base, {"chatd": server.process.pid, "PostgreSQL": postmaster}, streams, rate, pieces)
            finally:
                await server.end(signal.SIGTERM)


@asynccontextmanager
async def model_server(pieces: int, rate: float) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.model", str(pieces), str(rate)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


async def run(base: str, servers: dict[str, int], streams: int, rate: float, pieces: int) -> None:
    async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(limit=0)) as session:
        await read(session)  # the first turn waits for the SDK's import
        before = {name: cpu(pid) for name, pid in servers.items()}
        begun = time.monotonic()
        received = await asyncio.gather(*(read(session, n / streams) for n in range(streams)))
        seconds = time.monotonic() - begun
        used = {name: cpu(pid) - before[name] for name, pid in servers.items()}
    delays = [delay for stream in received for delay in stream]
    if len(delays) != streams * pieces:
        sys.exit(f"{len(delays)} of {streams * pieces} pieces came through")
    print(f"{streams} streams x {rate:g} pieces/s x {pieces} pieces, every piece committed before it is sent on")
    print(f"took {seconds:.1f} s (ideal {pieces / rate:.1f} s)")
    print("delay from the model's write to the client's read:", describe(delays))
    print("the same without each stream's first second:", describe([d for s in received for d in s[int(rate) :]]))
    for name, seconds in used.items():
        print(f"CPU a piece, {name}: {seconds / len(delays) * 1e6:.0f} us")
    print(f"memory of chatd: {memory(servers['chatd']):.0f} MB")


def describe(delays: list[float]) -> str:
    marks = statistics.quantiles(delays, n=100)
    return f"p50 {marks[49]:.1f} ms, p99 {marks[98]:.1f} ms, max {max(delays):.1f} ms"


async def read(session: aiohttp.ClientSession, wait: float = 0) -> list[float]:
    """Wait some seconds, stream a turn and return the delay of each piece in ms."""
    await asyncio.sleep(wait)
    delays: list[float] = []
    body = {"message": "go", "character_id": 1}
    async with session.post("/agent/chat/stream", json=body) as response:
        rest = b""
        async for chunk in response.content.iter_any():
            now = time.monotonic_ns()
            *lines, rest = (rest + chunk).split(b"\n")
            text = "".join(json.loads(line[6:]).get("text", "") for line in lines if line.startswith(b"data: "))
            delays += [(now - int(sent)) / 1e6 for sent in SENT.findall(text)]
    return delays


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process and its children, those that have ended included."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    used = 0
    for one in [pid, *map(int, children)]:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(") ")[2].split()
        used += sum(map(int, fields[11 : 15 if one == pid else 13]))
    return used / TICK


def memory(pid: int) -> float:
    """Return a process's resident memory in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


main()
