"""Waiting for a pipe in such a way that Ctrl-C, or SIGTERM, ends it."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Have Ctrl-C end a read or write at once: asyncio, which cancels the task, would wait until it has ended."""
    of_asyncio = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if (task := asyncio.current_task()) and task.cancelling():  # it came just before
            raise KeyboardInterrupt
        yield
    finally:
        signal.signal(signal.SIGINT, of_asyncio)
