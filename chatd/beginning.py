"""The beginning of a turn: it is committed, or refused, or in doubt and then undone."""

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from chatd.crash import crash_point
from chatd.errors import InDoubt, SlotTaken
from chatd.limits import Quota, longest_refusal
from chatd.models import Turn, TurnRequest

if TYPE_CHECKING:
    from chatd.turns import Turns

SLOT_RACES = 10  # that a turn may lose, each to another one of its owner's
DOUBT_TIMEOUT = 1.0  # seconds that the client waits for a doubtful beginning to be undone


class Begun(NamedTuple):
    """A turn that was asked for: `replayed` where its key had begun it before, else with what its owner has left."""

    turn: Turn
    replayed: bool
    quotas: list[Quota]


class Beginning:
    """`told` is what whoever waits is told: the turn has begun (None), or why not. `settled`: it is certain which.

    `made`: it has begun; `quotas` is what its owner has left then.
    """

    def __init__(self, turns: "Turns", turn: Turn) -> None:
        self.repo, self.journal, self.boot_id, self.turn = turns.repo, turns.journal, turns.boot_id, turn
        self.limits = turns.limits
        self.made = False
        self.quotas: list[Quota] = []
        loop = asyncio.get_running_loop()
        self.told: asyncio.Future[None] = loop.create_future()
        self.told.add_done_callback(lambda told: told.cancelled() or told.exception())  # nobody may be waiting
        self.settled: asyncio.Future[None] = loop.create_future()

    def skip(self) -> None:
        """Begin nothing: the turn is there already."""
        self.made = True
        self.told.set_result(None)
        self.settled.set_result(None)

    async def make(self, request: TurnRequest, start: str) -> bool:
        """Begin the turn, `start` being the JSON of its first event; False: it has not begun."""
        refusal: BaseException | None = None
        try:
            await self._begin(request, start)
        except BaseException as error:  # noqa: BLE001 - whoever waits is told, and it is raised below
            refusal = error
        self.made = refusal is None
        self._tell(refusal)
        self.settled.set_result(None)
        if refusal and not isinstance(refusal, Exception):
            raise refusal
        return self.made

    async def _begin(self, request: TurnRequest, start: str) -> None:
        """Begin the turn; raises why it has not begun."""
        try:
            crash_point("before_begin")
            self.quotas = await self._insert(request, start)
            crash_point("after_begin")
        except InDoubt as doubt:
            if await self._undo(request, doubt):
                raise

    async def _insert(self, request: TurnRequest, start: str) -> list[Quota]:
        for _ in range(SLOT_RACES):
            try:
                return await self.repo.begin_turn(request, self.turn, self.boot_id, start, self.limits)
            except SlotTaken:
                continue
        raise longest_refusal(self.limits.quotas(turns_left=0))

    def _tell(self, refusal: BaseException | None) -> None:
        if self.told.done():
            return
        if refusal is None:
            self.told.set_result(None)
        else:
            self.told.set_exception(refusal)

    async def _undo(self, request: TurnRequest, doubt: InDoubt) -> bool:
        """End the doubtful connection and undo the turn; False: it has begun and stays, since others rely on it.

        The client is told that nothing was written when that is true, or when it takes too long.
        """
        crash_point("before_abandon")
        telling = asyncio.get_running_loop().call_later(DOUBT_TIMEOUT, self._tell, doubt)
        try:
            abandon = self.repo.abandon_turn
            return bool(await self.journal.insist(lambda: abandon(request, self.turn, doubt.backend)))
        finally:
            telling.cancel()
