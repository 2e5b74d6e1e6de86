"""The turns that this process runs: begun, replayed, taken over, stopped, handed over."""

import asyncio
import json
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, cast

from chatd.beginning import Begun
from chatd.config import Config
from chatd.crash import crash_point
from chatd.errors import (
    CharacterForbidden,
    IdempotencyMismatch,
    KeyTaken,
    NotFound,
    RateLimited,
    TooManyTurns,
    TurnInProgress,
    Unavailable,
)
from chatd.journal import Journal
from chatd.limits import TurnLimits
from chatd.llm import Llm
from chatd.metrics import Metrics
from chatd.models import Turn, TurnRequest, new_turn
from chatd.reply import Reply
from chatd.repo import Repo
from chatd.run import Run

if TYPE_CHECKING:
    from chatd.traces import Tracing

STOP_TIMEOUT = 5.0
OBEY_TIMEOUT = 2.0  # for the process that runs a turn to stop it
OBEY_POLL = 0.05
HAND_OVER_TIMEOUT = 0.7
KEY_RACES = 3
PAGE = 1000  # events a query


class Turns:
    """The turns that this process runs, findable from before their commit makes them visible."""

    def __init__(
        self,
        config: Config,
        repo: Repo,
        journal: Journal,
        llm: Llm,
        boot_id: uuid.UUID,
        metrics: Metrics,
        tracing: "Tracing | None",
    ) -> None:
        self.config, self.repo, self.journal, self.llm, self.boot_id = config, repo, journal, llm, boot_id
        self.metrics, self.tracing = metrics, tracing
        self.limits = TurnLimits(config.rate_turns or None, config.rate_tokens or None)
        self.running: dict[str, Run] = {}
        self.taking: set[str] = set()  # turns that were claimed and are about to run here
        self.draining = self.closed = False

    async def begin(self, request: TurnRequest) -> Begun:
        """Begin a turn and return it once it is committed, or the turn that the same key had begun.

        The turn has a task of its own: whoever waits here may leave. Raises what Repo.begin_turn does, TooManyTurns
        and IdempotencyMismatch. The unique index decides, so the key is looked up only after a refusal.
        """
        for _ in range(KEY_RACES):
            try:
                return await self._begin(request)
            except (KeyTaken, TurnInProgress, NotFound, CharacterForbidden, RateLimited, TooManyTurns) as refusal:
                if turn := await self.replay(request):
                    return Begun(turn, True, [])
                if not isinstance(refusal, KeyTaken):
                    raise
        raise Unavailable

    async def _begin(self, request: TurnRequest) -> Begun:
        if self.closed:
            raise Unavailable("The server is shutting down. Try again shortly.")
        if 0 < self.config.max_turns <= len(self.running):
            raise TooManyTurns
        run = Run(self, new_turn(request.session_id))
        self._start(run, run.begin_and_answer(request))
        await asyncio.shield(run.beginning.told)
        return Begun(run.turn, False, run.beginning.quotas)

    async def replay(self, request: TurnRequest) -> Turn | None:
        """Return the turn of a request's key; None where it has none, or one that is new (again: a turn was undone)."""
        if not request.key or not (found := await self.repo.replay_key(request.owner, request.key)):
            return None
        crash_point("after_replay")
        fingerprint, session_id, turn_id = found
        if fingerprint != request.fingerprint:
            raise IdempotencyMismatch
        if (turn := await self.repo.find_turn(session_id, turn_id)) is None:
            raise NotFound
        return turn

    async def take_over(self, turn: Turn) -> None:
        """Go on with a turn that was claimed, from what it has published."""
        crash_point("after_claim")
        self.taking.add(turn.id)
        try:
            events = await self.journal.insist(lambda: self._read_events(turn))
            if self.closed:
                await self._release([turn.id])
            else:
                Context().run(self._resume, turn, events)  # it is no part of a request that stops it
        finally:
            self.taking.discard(turn.id)

    def _resume(self, turn: Turn, events: list[tuple[int, str]]) -> None:
        crash_point("before_resume")
        self.metrics.turns.recoveries.inc()
        run = Run(self, turn)
        run.beginning.skip()
        for _, data in events:
            run.log.committed(data, json.loads(data))
        run.reply = Reply("".join(run.log.text))
        self._start(run, run.answer())

    async def _read_events(self, turn: Turn) -> list[tuple[int, str]]:
        events: list[tuple[int, str]] = []
        while page := await self.repo.list_events(turn.id, len(events), PAGE):
            events += page
        return events

    def _start(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        if older := self.running.get(run.turn.id):  # it was taken from this process and has come back
            older.lose()
        self.running[run.turn.id] = run
        run.start(work)
        run.task.add_done_callback(lambda _: self._forget(run))

    def _forget(self, run: Run) -> None:
        if self.running.get(run.turn.id) is run:
            del self.running[run.turn.id]

    async def stop(self, turn: Turn) -> Turn:
        """Stop a running turn, wherever it runs and whoever else stops it, and return it as it ended.

        A process that does not obey in time (it hangs, it is dead, or hears nothing) loses the turn to this one.
        Raises NotFound, Unavailable.
        """
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                while turn.state == "running":
                    run = self.running.get(turn.id)
                    turn = await (self._stop_here(run) if run else self._stop_elsewhere(turn))
        except TimeoutError:
            raise Unavailable("The turn does not stop. Try again shortly.") from None
        return turn

    async def _stop_here(self, run: Run) -> Turn:
        run.stop()
        await asyncio.wait([run.task])
        return run.log.turn if run.log.turn.state != "running" else await self.find(run.turn)

    async def _stop_elsewhere(self, turn: Turn) -> Turn:
        """Have another process stop a turn, or take the turn from it, to be stopped here."""
        await self.repo.request_stop(turn.id)
        crash_point("after_request_stop")
        with suppress(TimeoutError):
            async with asyncio.timeout(OBEY_TIMEOUT):
                while (turn := await self.find(turn)).state == "running" and turn.id not in self.running:
                    await asyncio.sleep(OBEY_POLL)
                return turn
        await self._seize(turn)
        return await self.find(turn)

    async def _seize(self, turn: Turn) -> None:
        self.taking.add(turn.id)
        try:
            if claimed := await self.repo.claim_turn(turn, self.boot_id):
                await self.take_over(claimed)
        finally:
            self.taking.discard(turn.id)

    async def find(self, turn: Turn) -> Turn:
        """Return a turn's row as it is now; raises NotFound."""
        found = await self.journal.insist(lambda: self.repo.find_turn(turn.session_id, turn.id))
        if found is None:
            raise NotFound
        return cast(Turn, found)

    def hear_stop(self, turn_ids: Sequence[str]) -> None:
        """Stop the turn, if it runs here, as another process asks."""
        for run in self._those_here(turn_ids):
            run.stop()

    def hear_follow(self, turn_ids: Sequence[str]) -> None:
        """Tell another process of the turn's events, for a while."""
        for run in self._those_here(turn_ids):
            run.log.follow()

    def _those_here(self, turn_ids: Sequence[str]) -> list[Run]:
        return [run for turn_id in turn_ids if (run := self.running.get(turn_id))]

    def own(self) -> list[str]:
        """Return the turns that this process runs, begins or takes over."""
        return [*self.running, *self.taking]

    async def renew(self) -> None:
        """Renew the leases of what runs here, stop what is to be stopped, and leave what another process took over."""
        own = [*(turn_id for turn_id, run in self.running.items() if run.beginning.told.done()), *self.taking]
        if self.closed or not own:
            return
        renewed = await self.repo.renew_leases(own, self.boot_id)
        for run in self._those_here(own):
            if run.turn.id not in renewed:
                run.lose()
            elif renewed[run.turn.id]:
                run.stop()

    def describe(self) -> str:
        readers = sum(len(run.log.readers) for run in self.running.values())
        return f"{len(self.running)} turns running, {readers} readers{', shutting down' if self.draining else ''}"

    async def drain(self) -> None:
        """Let running turns end, for a while; hand the others over to the next process."""
        if self.draining:
            return
        self.draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.config.drain_timeout
        while self.running and (left := deadline - loop.time()) > 0:
            await asyncio.wait([run.task for run in self.running.values()], timeout=left)
        self.closed = True
        handing_over = asyncio.create_task(self._hand_over(list(self.running.values())))
        await asyncio.wait([handing_over], timeout=HAND_OVER_TIMEOUT)

    async def _hand_over(self, runs: Sequence[Run]) -> None:
        """Cancel runs and let go of their turns; one that is about to begin, or to be undone, gets a little time."""
        if unsettled := [run.beginning.settled for run in runs if not run.beginning.settled.done()]:
            await asyncio.wait(unsettled, timeout=HAND_OVER_TIMEOUT / 2)
        for run in runs:
            run.hand_over()
        if runs:
            await asyncio.wait([run.task for run in runs], timeout=HAND_OVER_TIMEOUT / 2)
        if left := [run.turn.id for run in runs if run.beginning.settled.done() and run.task.done()]:
            await self._release(left)

    async def _release(self, turn_ids: Sequence[str]) -> None:
        crash_point("before_release")
        with suppress(Unavailable):
            await self.repo.release_turns(turn_ids, self.boot_id)
        crash_point("after_release")
