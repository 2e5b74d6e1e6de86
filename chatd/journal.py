"""Group commit: the events of all running turns go to the database together, and only then to their readers.

A turn adds pieces to its Log. The journal commits at once when nothing is being committed, else after
`flush_interval`; what gathers meanwhile for a turn becomes one event. A reader holds an index into the log's frames:
no queue, no copy, nothing that a slow one could hold up.
"""

import asyncio
import logging
from collections.abc import Callable
from itertools import groupby
from typing import Any

from chatd.errors import Unavailable
from chatd.models import Turn
from chatd.repo import Repo
from chatd.sse import encode, frame

logger = logging.getLogger(__name__)

MAX_TURN_PENDING = 1 << 20  # characters that a turn may have uncommitted before its upstream is no longer read
MAX_PENDING = 64 << 20  # characters, all turns together
MAX_TEXT = 1 << 16  # characters an event, so that a client need not hold a line of any length
MAX_WRITE = 1 << 18  # bytes, or one frame: one that catches up is not given all of a long answer at once
MAX_BATCH = 4 << 20  # characters a statement, unless a single turn has more
ROOM_POLL = 0.05  # seconds
MAX_RETRY_DELAY = 1.0  # seconds between two tries while the database is away


class Lost(Exception):
    """The turn is not this process's any more: another one took it over, or its session was deleted."""


class Log:
    """The events of one turn that this process runs: committed ones as frames, newer ones pending."""

    def __init__(self, turn: Turn, journal: "Journal") -> None:
        self.turn, self.journal = turn, journal
        self.frames: list[bytes] = []
        self.text: list[str] = []  # committed
        self.pending: list[dict[str, Any] | str] = []  # text pieces, and other events between them
        self.pending_size = 0
        self.ended = self.lost = False
        self.readers: set[Reader] = set()
        self.flushed = asyncio.Event()

    def add_text(self, piece: str) -> None:
        self.pending.append(piece)
        self.pending_size += len(piece)
        self.journal.add(self, len(piece))

    def add_event(self, event: dict[str, Any]) -> None:
        self.pending.append(event)
        self.journal.add(self, 0)

    def take(self) -> list[dict[str, Any]]:
        """Return what is pending as events, adjacent pieces joined."""
        pending, self.pending = self.pending, []
        events: list[dict[str, Any]] = []
        for is_text, items in groupby(pending, lambda item: isinstance(item, str)):
            run = list(items)
            events += text_events("".join(run)) if is_text else run  # type: ignore[arg-type]
        return events

    def committed(self, data: str, event: dict[str, Any]) -> None:
        """Show an event that is on disk."""
        self.frames.append(frame(self.turn.id, len(self.frames) + 1, data))
        follow(self.text, event)

    def end(self, *, lost: bool = False) -> None:
        """Let the readers end: after the last frame, which tells the end unless the turn is lost to this process."""
        self.ended, self.lost = True, self.lost or lost
        self.flushed.set()
        self.wake()

    def wake(self) -> None:
        for reader in self.readers:
            reader.wake()

    async def withdraw(self) -> list[dict[str, Any]]:
        """Take what is pending out of the journal, for the statement that ends the turn; raises Lost."""
        while not self.lost and self in self.journal.writing:
            self.flushed.clear()
            await self.flushed.wait()
        if self.lost:
            raise Lost
        return self.journal.withdraw(self)

    async def room(self) -> None:
        """Wait until more may be added; raises Lost."""
        while not self.lost and self.is_full():
            await asyncio.sleep(ROOM_POLL)
        if self.lost:
            raise Lost

    def is_full(self) -> bool:
        return self.pending_size > MAX_TURN_PENDING or self.journal.pending_size > MAX_PENDING


def follow(text: list[str], event: dict[str, Any]) -> None:
    """Add to a text, in pieces, what an event does to it."""
    if event["type"] == "reset":
        text.clear()
    if event["type"] in {"text", "reset"}:
        text.append(event["text"])


def text_events(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text[at : at + MAX_TEXT]} for at in range(0, len(text), MAX_TEXT)]


class Reader:
    """A place in a log: `read` returns what came after it."""

    def __init__(self, log: Log, index: int) -> None:
        self.log, self.index = log, index
        self.waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes | None:
        """Return the next frames, empty bytes when something else woke the reader, None at the end."""
        if self.index >= len(self.log.frames) and not self.log.ended:
            await self._wait()
        frames, size, first = self.log.frames, 0, self.index
        while self.index < len(frames) and size < MAX_WRITE:
            size += len(frames[self.index])
            self.index += 1
        return b"".join(frames[first : self.index]) if size or not self.log.ended else None

    async def _wait(self) -> None:
        self.waiter = asyncio.get_running_loop().create_future()
        self.log.readers.add(self)
        try:
            await self.waiter
        finally:
            self.log.readers.discard(self)
            self.waiter = None

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


Row = tuple[Log, int, str, dict[str, Any]]  # a log, the event's number, its JSON, the event


class Journal:
    """Commits what the logs have pending."""

    def __init__(self, repo: Repo, flush_interval: float) -> None:
        self.repo, self.flush_interval = repo, flush_interval
        self.changed: dict[Log, None] = {}  # an ordered set
        self.writing: set[Log] = set()
        self.pending_size = 0
        self.wake = asyncio.Event()
        self.away = False

    def add(self, log: Log, size: int) -> None:
        self.pending_size += size
        if log not in self.changed:
            self.changed[log] = None
            self.wake.set()

    def withdraw(self, log: Log) -> list[dict[str, Any]]:
        self.changed.pop(log, None)
        events = log.take()
        self._settle(log)
        return events

    async def run(self) -> None:
        """Commit for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await self.wake.wait()
            begun = loop.time()
            self.wake.clear()
            await self._flush()
            await asyncio.sleep(max(0.0, begun + self.flush_interval - loop.time()))

    async def _flush(self) -> None:
        try:
            await self.commit(self._take())
        except Exception:
            logger.exception("events can't be written, giving up their turns")
            written, self.writing = self.writing, set()
            for log in written:
                self._settle(log)
                log.end(lost=True)
        if self.changed:
            self.wake.set()

    def _take(self) -> list[Row]:
        """Number and encode what is pending, up to a batch's size."""
        rows: list[Row] = []
        size = 0
        while self.changed and size < MAX_BATCH:
            log = next(iter(self.changed))
            del self.changed[log]
            self.writing.add(log)
            size += log.pending_size
            events = log.take()
            first = len(log.frames) + 1
            rows += [(log, seq, encode(event), event) for seq, event in enumerate(events, first) if not log.ended]
        return rows

    async def commit(self, rows: list[Row]) -> None:
        """Write rows, however long the database is away, then show them; a turn that is lost is ended instead."""
        lost = await self.insist(lambda: self._write(rows)) if rows else set()
        for log, _, data, event in rows:
            if log not in lost:
                log.committed(data, event)
        written, self.writing = self.writing, set()
        for log in written:
            self._settle(log)
            if log in lost:
                log.end(lost=True)
            log.flushed.set()
            log.wake()

    def _settle(self, log: Log) -> None:
        """Count again what is pending."""
        left = sum(len(item) for item in log.pending if isinstance(item, str))
        self.pending_size -= log.pending_size - left
        log.pending_size = left

    async def _write(self, rows: list[Row]) -> set[Log]:
        """Return the logs whose turn is lost: an event of theirs is not in the database, or another one is."""
        written = await self.repo.append_events(
            [(log.turn.id, log.turn.epoch, seq, data) for log, seq, data, _ in rows]
        )
        if len(written) == len(rows):
            return set()
        doubtful = [row for row in rows if (row[0].turn.id, row[1]) not in written]
        return {row[0] for row in doubtful if not await self._is_there(row)}

    async def _is_there(self, row: Row) -> bool:
        """Tell whether a commit whose acknowledgement was lost had written this very event."""
        log, seq, data, _ = row
        return await self.repo.list_events(log.turn.id, seq - 1, 1) == [(seq, data)]

    async def insist(self, write: Callable[[], Any]) -> Any:
        """Try until the database is back."""
        delay = 0.05
        while True:
            try:
                result = await write()
            except Unavailable as error:
                if not self.away:
                    logger.warning("database away, holding what is not written: %r", error.__cause__)
                self.away = True
                await asyncio.sleep(delay)
                delay = min(delay * 2, MAX_RETRY_DELAY)
            else:
                if self.away:
                    logger.warning("database back")
                self.away = False
                return result
