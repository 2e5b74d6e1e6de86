"""Work beside other work: tasks that begin and end with a block, and do not die in silence."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

logger = logging.getLogger(__name__)


CANCEL_TIMEOUT = 0.3  # seconds; a query that is cancelled waits for a database that may be frozen


@asynccontextmanager
async def background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines until the block ends."""
    tasks = [asyncio.create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(report)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, for so long at most. (asyncio.wait_for may swallow a cancellation, up to Python 3.11.)"""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        work = task.get_coro()
        logger.critical("background task %s failed", getattr(work, "__qualname__", work), exc_info=error)
