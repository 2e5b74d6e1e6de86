"""Counters of work: statements on real connections, tasks and timers on the running loop."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from chatd.connections import QUERIES
from chatd.keys import REPO
from tests.chat_client import Chat

NAMES = {query: name for name, query in QUERIES.items()}
# What every process does now and then, whether a turn runs or not.
BACKGROUND_QUERIES = {"append_audit", "claim_turns", "read_audit_head", "renew_leases"} | {
    name for name in QUERIES if name.startswith("sweep_")
}
BACKGROUND_TASKS = {
    "Recovery.keep_claiming",
    "Recovery.keep_leases",
    "Audit.run",
    "sweep",
    "listen",
    "keep_notifying",
    "watch_lag",
}
TESTS = str(Path(__file__).parent)


async def count_statements(chat: Chat) -> Counter[str]:
    """Return a counter of what is asked of the database from now on, by the query's name."""
    counted: Counter[str] = Counter()

    def count(record: Any) -> None:
        name = NAMES.get(record.query) or record.query.strip(" ;\n")
        if name not in BACKGROUND_QUERIES:
            counted[name] += 1

    pool = chat.client.server.app[REPO].pool
    async with AsyncExitStack() as stack:
        for _ in range(pool.get_size()):
            conn = await stack.enter_async_context(pool.acquire())
            conn.add_query_logger(count)
    return counted


@contextmanager
def count_work() -> Iterator[Counter[str]]:
    """Count the tasks and timers that are made for turns and their readers, whichever task of theirs makes them."""
    counted: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    call_at = loop.call_at
    roots: dict[asyncio.Task[Any] | None, Any] = {None: None}  # of the tasks made here: what they are made for

    def count(kind: str, made: Any) -> Any:
        task = asyncio.current_task(loop)
        root = roots[task] if task in roots else task and task.get_coro()
        if is_counted(root):
            counted[f"{kind} {getattr(made, '__qualname__', made)}"] += 1
        return root

    def make_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        root = count("task", coro)
        task = asyncio.Task(coro, loop=loop, **options)
        roots[task] = root
        return task

    def make_timer(when: float, callback: Callable[..., Any], *args: Any, **options: Any) -> asyncio.TimerHandle:
        count("timer", callback)
        return call_at(when, callback, *args, **options)

    loop.set_task_factory(make_task)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "call_at", make_timer)
            yield counted
    finally:
        loop.set_task_factory(None)


def is_counted(root: Any) -> bool:
    """Tell whether work is chatd's own for its turns, by the coroutine behind it (None: a transport's callback)."""
    if root is None:
        return True
    return root.__qualname__ not in BACKGROUND_TASKS and not root.cr_code.co_filename.startswith(TESTS)
