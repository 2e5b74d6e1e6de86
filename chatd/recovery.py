"""Leases: who runs a turn, and what becomes of it when that process is gone.

A process holds a lock on a file named for its boot id: on this host a free lock tells at once that its owner is dead.
Elsewhere the lease tells, by the database's clock.
"""

import asyncio
import fcntl
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from chatd.errors import Unavailable
from chatd.models import Turn
from chatd.turns import Turns

logger = logging.getLogger(__name__)

RENEWAL = 5.0  # seconds; a lease lasts 20
CLAIMS = 100  # turns taken over at a time
PAGE = 1000  # events a query


@contextmanager
def hold_boot_id(data_dir: Path) -> Iterator[uuid.UUID]:
    """Yield a new boot id and hold its lock: the kernel lets go of it when this process ends, however it does."""
    boot_id = uuid.uuid4()
    path = lock_path(data_dir, boot_id)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield boot_id
        finally:
            path.unlink(missing_ok=True)


def lock_path(data_dir: Path, boot_id: uuid.UUID) -> Path:
    return data_dir / "boots" / f"{boot_id}.lock"


def is_dead(data_dir: Path, boot_id: uuid.UUID) -> bool:
    """Tell whether a process of this host is known to be gone; of another host's nothing is known."""
    try:
        with lock_path(data_dir, boot_id).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # no such file here, or its owner lives
        return False
    return True


class Recovery:
    def __init__(self, turns: Turns, data_dir: Path) -> None:
        self.turns, self.repo, self.boot_id = turns, turns.repo, turns.boot_id
        self.data_dir = data_dir

    async def run(self) -> None:
        """Take over what is orphaned and renew what is run here, for ever."""
        while True:
            try:
                await self.claim()
                await self.repo.renew_leases(list(self.turns.running), self.boot_id)
            except Unavailable:
                logger.debug("leases wait for the database")
            except Exception:
                logger.exception("leases can't be kept")
            await asyncio.sleep(RENEWAL)

    async def claim(self) -> None:
        """Take over the turns of dead processes and go on with them."""
        boots = await self.repo.list_running_boots(self.boot_id)
        dead = [boot for boot in boots if is_dead(self.data_dir, boot)]
        for turn in await self.repo.claim_turns(self.boot_id, dead, CLAIMS):
            logger.info("going on with %s of session %s", turn.id, turn.session_id)
            self.turns.resume(turn, await self.read_events(turn))
        for boot in dead:
            lock_path(self.data_dir, boot).unlink(missing_ok=True)

    async def read_events(self, turn: Turn) -> list[tuple[int, str]]:
        events: list[tuple[int, str]] = []
        while page := await self.repo.list_events(turn.id, len(events), PAGE):
            events += page
        return events


@asynccontextmanager
async def open_recovery(turns: Turns, data_dir: Path) -> AsyncIterator[Recovery]:
    recovery = Recovery(turns, data_dir)
    task = asyncio.create_task(recovery.run())
    try:
        yield recovery
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
