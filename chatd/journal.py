"""Group commit: the events of all running turns go to the database together, and only then to their readers.

A turn adds pieces to its log. The journal commits at once when nothing is being committed, else after
`flush_interval`; what gathers meanwhile for a turn becomes one event.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from chatd.crash import crash_point
from chatd.errors import Unavailable
from chatd.metrics import JournalMetrics
from chatd.models import Turn
from chatd.outage import Outage
from chatd.repo import Repo
from chatd.sse import encode
from chatd.turn_log import Log

logger = logging.getLogger(__name__)

MAX_TURN_PENDING = 1 << 20  # characters that a turn may have uncommitted before its upstream is no longer read
MAX_PENDING = 64 << 20  # characters, all turns together
MAX_TEXT = 1 << 16  # characters an event, so that a client need not hold a line of any length
MAX_BATCH = 4 << 20  # characters a statement, unless a single turn has more
ROOM_POLL = 0.05  # seconds
MAX_RETRY_DELAY = 0.25  # seconds between two tries while the database is away
FOLLOWED = 10.0  # seconds for which a process that follows a turn is told of its events, once it has asked


class Lost(Exception):
    """The turn is not this process's any more: another one took it over, or its session was deleted."""


class PendingLog(Log):
    """The log of a turn that runs here: also what is not yet committed."""

    def __init__(self, turn: Turn, journal: "Journal") -> None:
        super().__init__(turn)
        self.journal = journal
        self.pending: list[dict[str, Any]] = []  # events
        self.pieces: list[str] = []  # of text, behind them: they become one event
        self.pending_size = 0
        self.flushed = asyncio.Event()
        self.followed_until = 0.0  # by the loop's clock

    def add_text(self, piece: str) -> None:
        self.pieces.append(piece)
        self.journal.metrics.pieces.count += 1
        self.pending_size += len(piece)
        self.journal.add(self, len(piece))

    def add_event(self, event: dict[str, Any]) -> None:
        self.pending = [*self.take(), event]
        self.journal.add(self, 0)

    def take(self) -> list[dict[str, Any]]:
        """Return what is pending as events."""
        events = self.pending + text_events("".join(self.pieces))
        self.pending, self.pieces = [], []
        return events

    def end(self, *, lost: bool = False) -> None:
        super().end(lost=lost)
        self.flushed.set()

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

    def follow(self) -> None:
        """Another process follows this turn, for a while."""
        self.followed_until = asyncio.get_running_loop().time() + FOLLOWED


def text_events(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text[at : at + MAX_TEXT]} for at in range(0, len(text), MAX_TEXT)]


Row = tuple[PendingLog, int, str, dict[str, Any]]  # a log, the event's number, its JSON, the event


class Journal:
    """Commits what the logs have pending."""

    def __init__(self, repo: Repo, flush_interval: float, metrics: JournalMetrics) -> None:
        self.repo, self.flush_interval, self.metrics = repo, flush_interval, metrics
        self.changed: dict[PendingLog, float] = {}  # since when (by time.monotonic), the first one first
        self.writing: dict[PendingLog, float] = {}
        self.pending_size = 0
        self.wake = asyncio.Event()
        self.to_tell: set[str] = set()  # turns that were published, and are followed elsewhere
        self.telling = asyncio.Event()
        self.outage = Outage()
        metrics.uncommitted.set_function(lambda: self.pending_size)
        metrics.age.set_function(self._age)
        metrics.away.set_function(lambda: self.outage.since is not None)

    def _age(self) -> float:
        """Return how long, in seconds, the oldest of what is pending has been."""
        now = time.monotonic()
        return now - min([*self.writing.values(), *self.changed.values()], default=now)

    def add(self, log: PendingLog, size: int) -> None:
        self.pending_size += size
        if log not in self.changed:
            self.changed[log] = time.monotonic()
            self.wake.set()

    def withdraw(self, log: PendingLog) -> list[dict[str, Any]]:
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
            self.metrics.errors.inc()
            logger.exception("events can't be written: leaving their turns to be taken over")
            written, self.writing = self.writing, {}
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
            log, since = next(iter(self.changed.items()))
            del self.changed[log]
            self.writing[log] = since
            size += log.pending_size
            events = log.take()
            first = len(log.frames) + 1
            if not log.ended:
                rows += [(log, seq, encode(event), event) for seq, event in enumerate(events, first)]
        return rows

    async def commit(self, rows: list[Row]) -> None:
        """Write rows, however long the database is away, then show them; a turn that is lost is ended instead."""
        crash_point("before_append")
        begun = time.monotonic()
        lost = await self.insist(lambda: self._write(rows)) if rows else set()
        crash_point("after_append")
        committed = time.monotonic()
        for log, _, data, event in rows:
            if log not in lost:
                log.committed(data, event)
        written, self.writing = self.writing, {}
        for log in written:
            self._settle(log)
            if log in lost:
                log.end(lost=True)
            log.flushed.set()
            log.wake()
        if rows:
            self.metrics.commit(len(rows), next(iter(written.values())), begun, committed)
        self.tell_followers(written)

    def tell_followers(self, logs: Iterable[PendingLog]) -> None:
        """Have the processes whose readers follow these turns look at once; they look anyway, a little later."""
        now = asyncio.get_running_loop().time()
        if followed := [log.turn.id for log in logs if log.followed_until > now]:
            self.to_tell.update(followed)
            self.telling.set()

    async def keep_telling(self) -> None:
        """Send those notices, for ever; the next commit does not wait for them."""
        while True:
            await self.telling.wait()
            self.telling.clear()
            turn_ids, self.to_tell = list(self.to_tell), set()
            with suppress(Unavailable):
                await self.repo.notify("events", turn_ids)

    def _settle(self, log: PendingLog) -> None:
        """Count again what is pending."""
        left = sum(map(len, log.pieces)) + sum(len(event.get("text", "")) for event in log.pending)
        self.pending_size -= log.pending_size - left
        log.pending_size = left

    async def _write(self, rows: list[Row]) -> set[PendingLog]:
        """Return the logs whose turn is lost: an event of theirs is not in the database, or another one is.

        One that was there before is of a commit whose acknowledgement was lost: of these very rows, all or none.
        """
        events = [(log.turn.id, log.turn.epoch, seq, data) for log, seq, data, _ in rows]
        if await self.repo.append_events(events) == len(rows):
            return set()
        there = await self.repo.find_events([(turn_id, seq, data) for turn_id, _, seq, data in events])
        return {log for log, seq, *_ in rows if (log.turn.id, seq) not in there}

    async def insist(self, write: Callable[[], Any]) -> Any:
        """Try until the database is back."""
        delay, writer = 0.05, object()
        try:
            while True:
                try:
                    result = await write()
                except Unavailable as error:
                    self.outage.notice(error, writer)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, MAX_RETRY_DELAY)
                else:
                    self.outage.go_on(writer)
                    return result
        finally:
            self.outage.leave(writer)
