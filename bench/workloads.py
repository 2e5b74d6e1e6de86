"""What is measured. Each workload takes a server that has just been started and returns figures by name."""

from collections.abc import Awaitable, Callable, Sequence

from bench.requests import CONCURRENCY, database, full_database, history, long_session, start, turns
from bench.results import Figures
from bench.servers import Server
from bench.streams import FLOOD_STREAMS, fan_out, flood, idle, paced

Workload = Callable[[Server, int], Awaitable[Figures]]
# name: the workload, its sizes, and the servers for which it makes sense (none: all)
WORKLOADS: dict[str, tuple[Workload, Sequence[int], Sequence[str]]] = {
    "paced": (paced, (10, 50, 200, 500, 750, 1000), ()),
    "flood": (flood, (FLOOD_STREAMS,), ()),
    "idle": (idle, (1000, 4000), ("chatd",)),
    "fan-out": (fan_out, (1000,), ("chatd",)),
    "turns": (turns, tuple(CONCURRENCY), ("chatd", "FastAPI")),
    "long session": (long_session, (100, 10_000), ("chatd", "FastAPI")),
    "history": (history, (100, 10_000, 100_000), ("chatd", "FastAPI")),
    "full database": (full_database, (10, 1_000_000), ("chatd",)),
    "database": (database, (1,), ("chatd",)),
    "start": (start, (1,), ("chatd",)),
}


def describe(name: str) -> str:
    return (WORKLOADS[name][0].__doc__ or "").strip()
