"""Leases: who runs a turn, and what becomes of it when that process is gone.

A process holds a lock on a file named for its boot id: on this host a free lock tells at once that its owner is dead.
Elsewhere the lease tells, by the database's clock.
"""

import asyncio
import fcntl
import logging
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chatd.background import wait_for
from chatd.errors import Unavailable
from chatd.log_events import log_event
from chatd.logs import go_on_with
from chatd.models import Turn
from chatd.turns import Turns

logger = logging.getLogger(__name__)

LEASE = 20.0  # seconds, as in the queries
RENEWAL = 5.0
LOOK = 1.0  # seconds between two looks for the dead
PATIENCE = 2 * RENEWAL
UUID = re.compile(r"[0-9a-f-]{36}")
CLAIMS = 100  # turns taken over at a time
BOOTS = "boots"


@contextmanager
def hold_boot_id(data_dir: Path) -> Iterator[uuid.UUID]:
    """Yield a new boot id and hold its lock: the kernel lets go of it when this process ends, however it does.

    The file stays, to tell the next process that this one is gone.
    """
    boot_id = uuid.uuid4()
    directory = data_dir / BOOTS
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    unlocked = directory / f"{boot_id}.new"
    with unlocked.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        unlocked.rename(directory / f"{boot_id}.lock")
        yield boot_id


def dead_boots(data_dir: Path) -> dict[uuid.UUID, Path]:
    """Return the processes of this host that are known to be gone, and their files."""
    paths = (path for path in (data_dir / BOOTS).glob("*.lock") if UUID.fullmatch(path.stem))
    return {uuid.UUID(path.stem): path for path in paths if is_free(path)}


def is_free(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its owner lives, or another process has just tidied up
        return False
    return True


class Recovery:
    """Renews the leases of this process's turns, and takes over the turns of processes that are gone."""

    def __init__(self, turns: Turns, data_dir: Path) -> None:
        self.turns, self.repo, self.data_dir = turns, turns.repo, data_dir
        self.deaths: dict[uuid.UUID, float] = {}  # when they were noticed, by the loop's clock
        self.orphans = asyncio.Event()  # another process has let go of turns
        self.now = asyncio.get_running_loop().time
        self.patient_until = 0.0

    def hear_orphans(self, _: Sequence[str]) -> None:
        self.orphans.set()

    async def keep_leases(self) -> None:
        """Renew what is run here, for ever."""
        while True:
            try:
                await self.turns.renew()
            except Unavailable:
                self.patient_until = self.now() + PATIENCE
            except Exception:
                logger.exception("leases can't be renewed")
            await asyncio.sleep(RENEWAL)

    async def keep_claiming(self) -> None:
        """Take over what is orphaned, until this process drains.

        When the database was away, others get the time to renew theirs before anything is taken over.
        """
        outage = self.turns.journal.outage
        while not self.turns.draining:
            try:
                if self.now() >= self.patient_until:
                    await self.claim()
                    outage.go_on()
            except Unavailable as error:
                outage.notice(error)
                self.patient_until = self.now() + PATIENCE
            except OSError as error:  # the lock files can't be looked at: no file descriptors left, say
                logger.warning("can't check which processes are dead: %s", error)
            except Exception:
                logger.exception("orphans can't be claimed")
            await wait_for(self.orphans, LOOK)
            self.orphans.clear()

    async def claim(self) -> None:
        """Take over the turns of dead processes and go on with them.

        A dead process's last statement may be done after its death: so it is counted among the dead for a while.
        """
        dead = dead_boots(self.data_dir)
        self.deaths = {boot_id: self.deaths.get(boot_id, self.now()) for boot_id in dead}
        more = True
        while more and not self.turns.draining:
            turns = await self.repo.claim_turns(self.turns.boot_id, list(dead), CLAIMS, self.turns.own())
            await asyncio.gather(*map(self._take_over, turns))
            more = len(turns) == CLAIMS
        for boot_id, noticed in self.deaths.items():
            if self.now() > noticed + LEASE:
                dead[boot_id].unlink(missing_ok=True)

    async def _take_over(self, turn: Turn) -> None:
        go_on_with(turn)
        going = "going on with the turn of a process that is gone"
        log_event(logger, logging.INFO, "turn.recovered", going, recoveries=turn.recoveries)
        try:
            await self.turns.take_over(turn)
        except Exception:
            logger.exception("the turn can't be taken over")
