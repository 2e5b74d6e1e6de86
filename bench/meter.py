"""What a stretch of work cost, and how long its parts took."""

import statistics
import time
from collections.abc import Sequence

import asyncpg

from bench.processes import usage
from bench.results import Figures
from bench.servers import Server


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


async def wal_position(server: Server) -> int:
    """Return how much the server's PostgreSQL has logged, in bytes."""
    conn = await asyncpg.connect(server.dsn)
    try:
        return int(await conn.fetchval("SELECT pg_current_wal_lsn() - '0/0'"))
    finally:
        await conn.close()
