"""Logs of turns that run elsewhere, fed from the database: one for all who read a turn here."""

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import closing, suppress

from chatd.background import wait_for
from chatd.errors import Unavailable
from chatd.models import Turn
from chatd.repo import Repo
from chatd.turn_log import Log, Reader
from chatd.turns import Turns

logger = logging.getLogger(__name__)

POLL = 1.0  # seconds between two looks, should no notice come
ASK = 5.0  # seconds between two requests for notices: they hold for 10
CLOSE_TIMEOUT = 0.5  # for queries that are under way
RETRY = 0.2  # seconds between two looks at a turn that changes hands
PAGE = 256  # events a query


class Swept(Exception):
    """Events are missing."""


class Mirror:
    """The log of one turn that another process writes."""

    def __init__(self, repo: Repo, turn: Turn) -> None:
        self.repo, self.log = repo, Log(turn)
        self.woken = asyncio.Event()
        self.asked = -ASK

    async def run(self) -> None:
        """Follow the turn to its end, or as long as somebody reads."""
        try:
            while not await self._catch_up():
                await self._ask_for_notices()
                await wait_for(self.woken, POLL)
                self.woken.clear()
                if not self.log.readers:
                    return
        finally:
            self.log.end(lost=self.log.turn.state == "running")

    async def _catch_up(self) -> bool:
        """Show what is new and tell whether the turn is over here: it has ended, or is gone with its session."""
        try:
            await self._read_events()
            turn = await self.repo.find_turn(self.log.turn.session_id, self.log.turn.id)
            if turn is None or turn.state == "running":
                return turn is None
            await self._read_events()  # those that were written between the two looks
        except Unavailable:
            return False
        except Swept:
            return True
        if turn.last_seq == len(self.log.frames):
            self.log.turn = turn
        return True

    async def _read_events(self) -> None:
        page_size = PAGE
        while page_size == PAGE:
            page = await self.repo.list_events(self.log.turn.id, len(self.log.frames), PAGE)
            for seq, data in page:
                if seq != len(self.log.frames) + 1:  # swept, while this process stood still
                    raise Swept
                self.log.committed(data, json.loads(data))
            self.log.wake()
            page_size = len(page)

    async def _ask_for_notices(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self.asked + ASK:
            self.asked = now
            with suppress(Unavailable):
                await self.repo.notify("follow", [self.log.turn.id])


class Mirrors:
    """The mirrors of this process, made when they are first needed."""

    def __init__(self, repo: Repo, turns: Turns) -> None:
        self.repo, self.turns = repo, turns
        self.mirrors: dict[str, Mirror] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.closed = False

    def log_of(self, turn: Turn) -> Log:
        """Return the log of a running turn: its own where it runs here, else a mirror."""
        if run := self.turns.running.get(turn.id):
            return run.log
        if self.closed:
            gone = Log(turn)
            gone.end(lost=True)
            return gone
        if (mirror := self.mirrors.get(turn.id)) is None or mirror.log.ended:
            mirror = self._start(Mirror(self.repo, turn))
        return mirror.log

    async def wait_for_end(self, turn: Turn) -> Turn:
        """Return a turn as it ended, whoever ends it, or as it runs when this process is about to end.

        Raises NotFound when it is deleted meanwhile.
        """
        while turn.state == "running" and not self.turns.closed:
            with closing(Reader(self.log_of(turn), 0)) as reader:
                await reader.log.over.wait()
            turn = reader.log.turn
            if turn.state == "running" and not self.turns.closed:  # another process has it now
                turn = await self.turns.find(turn)
                await asyncio.sleep(RETRY)
        return turn

    def _start(self, mirror: Mirror) -> Mirror:
        self.mirrors[mirror.log.turn.id] = mirror
        task = asyncio.create_task(mirror.run())
        self.tasks.add(task)
        task.add_done_callback(lambda task: self._end(mirror, task))
        return mirror

    def _end(self, mirror: Mirror, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        turn_id = mirror.log.turn.id
        if self.mirrors.get(turn_id) is mirror:
            del self.mirrors[turn_id]
        if not task.cancelled() and (error := task.exception()):
            logger.error("%s can't be followed", turn_id, exc_info=error)

    def hear_events(self, turn_ids: Sequence[str]) -> None:
        """Look at turns that have published something."""
        for turn_id in turn_ids:
            if mirror := self.mirrors.get(turn_id):
                mirror.woken.set()

    async def close(self) -> None:
        """Let the readers go: they are to come back, and find another process."""
        self.closed = True
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=CLOSE_TIMEOUT)
