"""The events of a turn as this process knows them: committed, encoded once, for any number of readers.

A reader holds an index into the log's frames: no queue, no copy, nothing that a slow one could hold up.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from chatd.models import Turn
from chatd.sse import frame

Push = Callable[[bytes], bool]  # writes frames at once, or returns False where that would take waiting
MAX_WRITE = 1 << 18  # bytes, or one frame: one that catches up is not given all of a long answer at once


class Log:
    """A turn's committed events as frames, and the text that they add up to.

    `turn` is its row: as it began, and once the log has ended, as it ended, unless the log is lost: then the turn goes
    on elsewhere, or is gone.
    """

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.frames: list[bytes] = []
        self.text: list[str] = []
        self.lost = False
        self.over = asyncio.Event()
        self.readers: set[Reader] = set()

    @property
    def ended(self) -> bool:
        return self.over.is_set()

    def committed(self, data: str, event: dict[str, Any]) -> None:
        """Show an event that is on disk; `data` is its JSON."""
        self.frames.append(frame(self.turn.id, len(self.frames) + 1, data))
        apply_event(self.text, event)

    def end(self, *, lost: bool = False) -> None:
        """Let the readers end, after the last frame."""
        self.lost = self.lost or lost
        self.over.set()
        self.wake()

    def wake(self) -> None:
        for reader in self.readers:
            reader.go_on()


def apply_event(text: list[str], event: dict[str, Any]) -> None:
    """Do to a text, in pieces, what an event says."""
    if event["type"] == "reset":
        text.clear()
    if event["type"] in {"text", "reset"}:
        text.append(event["text"])


class Reader:
    """A place in a log: `read` returns what came after it."""

    def __init__(self, log: Log, index: int) -> None:
        self.log, self.index = log, index
        self.waiter: asyncio.Future[None] | None = None
        log.readers.add(self)

    def close(self) -> None:
        self.log.readers.discard(self)

    @property
    def lost(self) -> bool:
        return self.log.lost

    async def read(self, push: Push) -> bytes | None:
        """Return the next frames, empty bytes when something else woke the reader, None at the end.

        Frames that come while it waits are handed to `push`, as long as that takes them: a task that is woken for each
        costs more than the frame.
        """
        if self.index >= len(self.log.frames) and not self.log.ended:
            await self._wait(push)
        frames, self.index = self._next()
        return frames if frames or not self.log.ended else None

    def _next(self) -> tuple[bytes, int]:
        """Return the frames that may be written together, and the index behind them."""
        frames, size, end = self.log.frames, 0, self.index
        while end < len(frames) and size < MAX_WRITE:
            size += len(frames[end])
            end += 1
        return b"".join(frames[self.index : end]), end

    async def _wait(self, push: Push) -> None:
        self.waiter, self.push = asyncio.get_running_loop().create_future(), push
        try:
            await self.waiter
        finally:
            self.waiter = None

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def go_on(self) -> None:
        """Push what is new, or wake the reader to see to it."""
        if self.waiter is None or self.waiter.done():
            return
        frames, end = self._next()
        if not self.log.ended and (not frames or self.push(frames)):
            self.index = end
        else:
            self.wake()
