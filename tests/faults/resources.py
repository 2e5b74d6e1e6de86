"""What a process holds: to be back where it was, warm, when the faults are over."""

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")
ESTABLISHED = "01"
SETTLE_TIMEOUT = 15.0
SPARE_FDS = 3
SPARE_THREADS = 2
SPARE_MEMORY = 32 << 20  # bytes: an allocator does not give all back


@dataclass(frozen=True)
class Resources:
    fds: int
    threads: int
    memory: int  # bytes, resident
    connections: int  # to the database

    def __str__(self) -> str:
        return f"{self.fds} fds, {self.threads} threads, {self.memory >> 20} MiB, {self.connections} connections"

    def is_near(self, warm: "Resources") -> bool:
        return (
            self.fds <= warm.fds + SPARE_FDS
            and self.threads <= warm.threads + SPARE_THREADS
            and self.memory <= warm.memory + SPARE_MEMORY
            and self.connections <= warm.connections
        )


async def measure(pid: int, dsn: str) -> Resources:
    """Return what a chatd process holds now; the connections are all processes' on that database."""
    conn = await asyncpg.connect(dsn)
    try:
        connections = await conn.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'chatd' AND datname = current_database()"
        )
    finally:
        await conn.close()
    return Resources(count(pid, "fd"), count(pid, "task"), resident(pid), connections)


def count(pid: int, what: str) -> int:
    """Return how many of a process's `fd` or `task` there are."""
    return sum(1 for _ in Path(f"/proc/{pid}/{what}").iterdir())


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def established(port: int) -> set[int]:
    """Return the client ports of a local server's open connections, without those that only the kernel still knows."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [(port_in(row[1]), port_in(row[2])) for row in rows if row[3] == ESTABLISHED]
    return {theirs for ours, theirs in ends if ours == port}


def port_in(address: str) -> int:
    return int(address.partition(":")[2], 16)


async def peak_memory(pid: int, work: asyncio.Future[Any]) -> int:
    """Return the most that a process held, in bytes, until some work was done."""
    peak = 0
    while not work.done():
        peak = max(peak, resident(pid))
        await asyncio.sleep(0.05)
    return peak


def cpu_seconds(pid: int) -> float:
    """Return the time that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


async def check_resources(pid: int, dsn: str, warm: Resources) -> Resources:
    """Wait until a process is back near its warm baseline; raises AssertionError where it stays above."""
    limit = time.monotonic() + SETTLE_TIMEOUT
    while not (now := await measure(pid, dsn)).is_near(warm):
        assert time.monotonic() < limit, f"held: {now}; warm it was: {warm}"
        await asyncio.sleep(0.2)
    return now
