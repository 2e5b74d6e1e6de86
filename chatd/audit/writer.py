"""The audit's writer: entries are appended in groups, by a task of its own, however long the database is away."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import replace
from ipaddress import ip_network

from chatd.audit.chain import BROKEN, Entry, Head, Link, chain, find_link, make_head, names_of, now
from chatd.audit.key import AuditKey
from chatd.background import wait_for
from chatd.connections import Connection
from chatd.errors import Unavailable
from chatd.repo import Repo

logger = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds that entries wait for company, unless somebody waits for one
PAUSE = 0.002  # seconds between two groups: others may want to append, too
RETRY = 0.5
WAIT = 2.0  # seconds that a request waits for its entry
DRAIN_TIMEOUT = 0.7  # as in chatd.turns.HAND_OVER_TIMEOUT
FLUSH_TIMEOUT = 0.2  # at the end, for what came after the drain had begun
MAX_GROUP = 500
MAX_QUEUE = 10_000
MINUTE = 60.0
EACH = 10  # refusals of a source that are recorded in a minute one by one; the others are counted
SOURCES = 50  # of which that is so, in a minute; the others count as one


class Flood:
    """Counts what would be too much to record, a minute at a time."""

    def __init__(self) -> None:
        self.counts: Counter[Hashable] = Counter()
        self.left_out: dict[Hashable, Entry] = {}  # the latest of each source's

    def admits(self, entry: Entry) -> bool:
        source = (entry.action, entry.owner or network_of(entry.address))
        if source not in self.counts and len(self.counts) >= SOURCES:
            source = (entry.action, None)
            entry = replace(entry, owner=None, address=None)
        self.counts[source] += 1
        if self.counts[source] <= EACH:
            return True
        more = f"{self.counts[source] - EACH} more"
        self.left_out[source] = replace(entry, object=more, request_id=None, keeps_name=False)
        return False

    def end(self) -> list[Entry]:
        """Begin another minute, and return what is to be recorded of those that were left out: an entry a source."""
        left_out = list(self.left_out.values())
        self.counts.clear()
        self.left_out.clear()
        return left_out


def network_of(address: str | None) -> str | None:
    """Return what one source may have addresses of: of IPv6 a /64."""
    return str(ip_network(f"{address}/64", strict=False)) if address and ":" in address else address


class Audit:
    """Records entries."""

    def __init__(self, repo: Repo, key: AuditKey) -> None:
        self.repo, self.key = repo, key
        self.queue: deque[tuple[Entry, asyncio.Future[bool] | None]] = deque()
        self.wake, self.hurry, self.idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.idle.set()
        self.known: Head | None = None  # where this process has moved the head
        self.link: Link | None = None
        self.floods = {"owner": Flood(), "address": Flood()}  # many addresses hide no owner
        self.minute: asyncio.TimerHandle | None = None
        self.dropped = 0
        self.stuck: bool | None = None  # at the end: whether the database takes nothing any more

    def record(self, entry: Entry) -> None:
        """Record an entry, some time."""
        self._add(entry, None)

    def record_refusal(self, entry: Entry) -> None:
        """Record what anybody may cause as often as they like: in a minute so many, and how many more there were."""
        if self.minute is None:
            self.minute = asyncio.get_running_loop().call_later(MINUTE, self._end_minute)
        if self.floods["owner" if entry.owner else "address"].admits(entry):
            self.record(entry)

    async def record_now(self, entry: Entry) -> bool:
        """Record an entry and wait until it is committed; False: that takes long, and goes on."""
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._add(entry, written)
        self.hurry.set()
        await asyncio.wait([written], timeout=WAIT)
        return written.done() and written.result()

    def _add(self, entry: Entry, written: asyncio.Future[bool] | None) -> None:
        if len(self.queue) >= MAX_QUEUE:
            self.dropped += 1
            return
        self.queue.append((entry, written))
        self.idle.clear()
        self.wake.set()

    def _end_minute(self) -> None:
        self.minute = None
        for flood in self.floods.values():
            for entry in flood.end():
                self.record(entry)

    async def run(self) -> None:
        """Append what is recorded, for ever."""
        while True:
            await self.wake.wait()
            await wait_for(self.hurry, INTERVAL)
            self.hurry.clear()
            group = [self.queue.popleft() for _ in range(min(MAX_GROUP, len(self.queue)))]
            done = await self._append([entry for entry, _ in group])
            for _, written in group:
                if written is not None and not written.done():
                    written.set_result(done)
            if self.queue:
                self.hurry.set()
            else:
                self.wake.clear()
                self.idle.set()
            await asyncio.sleep(PAUSE)

    async def _append(self, entries: Sequence[Entry]) -> bool:
        """Append a group, as soon as there is a database; False: it can't be."""
        away = False
        while True:
            try:
                async with self.repo.connection() as conn:
                    await self.append_on(conn, entries)
            except Unavailable:
                if not away:
                    logger.warning("the audit waits for the database")
                away = True
                await asyncio.sleep(RETRY)
            except Exception:
                self.link = None
                if len(entries) > 1:  # the others are to be written
                    return all([await self._append([entry]) for entry in entries])
                logger.exception("an audit entry could not be written and is missing")
                return False
            else:
                self._report_dropped()
                return True

    async def append_on(self, conn: Connection, entries: Sequence[Entry]) -> None:
        """Append a group where the audit ends now.

        What is tried again, since an answer was lost, is the very same as before: so it is there once, however often.
        """
        while True:
            link = self.link = self.link or await self._find_link(conn)
            rows = chain(self.key, link, entries)
            head = make_head(self.key, rows[-1].seq, rows[-1].mac)
            if await self.repo.append_audit(conn, link, head, names_of(self.key, entries), rows):
                break
            if await self.repo.find_audit_mac(conn, rows[0].seq) == rows[0].mac:
                break  # an answer was lost
            self.link = None
        self.known = head
        self.link = Link(head, head.seq, head.mac)

    async def _find_link(self, conn: Connection) -> Link:
        """Return where the audit goes on."""
        found = await self.repo.read_audit_head(conn)
        assert found is not None, "agent_audit_head is empty"
        link = find_link(self.key, *found, self.known)
        if link.mac == BROKEN:
            logger.error("somebody has tampered with the audit, see chatd audit verify; it goes on behind the gap")
        elif link.mac and not self.key.is_own(link.mac):
            logger.warning("the audit was written with another key: set CHATD_AUDIT_KEY to the same everywhere")
        return link

    def _report_dropped(self) -> None:
        if self.dropped:
            logger.error("the audit lacks %d entries: there were too many at once", self.dropped)
            self.dropped = 0

    async def drain(self) -> None:
        """Append what is recorded by now, the first time: there is time for that while turns end."""
        if self.stuck is None:
            self.hurry.set()
            await wait_for(self.idle, DRAIN_TIMEOUT)
            self.stuck = not self.idle.is_set()

    async def flush(self) -> None:
        """Append what is left, for a little while."""
        if self.minute is not None:
            self.minute.cancel()
            self._end_minute()
        self.hurry.set()
        await wait_for(self.idle, 0 if self.stuck else FLUSH_TIMEOUT)
        if not self.idle.is_set():
            logger.error("the audit lacks the last entries, %d or more: the database is away", max(len(self.queue), 1))


async def record_command(repo: Repo, key: AuditKey, action: str, objects: Sequence[str], outcome: str) -> None:
    """Put in the audit what a command is about to do, or has done: it may end in between."""
    if entries := [Entry(now(), action, object=each, outcome=outcome) for each in objects]:
        async with repo.connection() as conn:
            await Audit(repo, key).append_on(conn, entries)
