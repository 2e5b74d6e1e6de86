"""The turns that this process runs."""

import asyncio
import json
import logging
import uuid
from collections.abc import Coroutine
from typing import Any

from chatd.config import Config
from chatd.errors import Unavailable
from chatd.journal import Journal
from chatd.llm import Llm
from chatd.models import Turn, new_id
from chatd.reply import Reply
from chatd.repo import Repo
from chatd.run import Run

logger = logging.getLogger(__name__)

STOP_TIMEOUT = 5.0


class Turns:
    """The turns that this process runs, findable from before their commit makes them visible."""

    def __init__(self, config: Config, repo: Repo, journal: Journal, llm: Llm, boot_id: uuid.UUID) -> None:
        self.config, self.repo, self.journal, self.llm, self.boot_id = config, repo, journal, llm, boot_id
        self.running: dict[str, Run] = {}
        self.draining = False

    async def begin(self, session_id: str | None, owner: str, character_id: int, content: str) -> Run:
        """Begin a turn, in a new session where none is named, and return it once it is committed.

        The turn has a task of its own: whoever waits here may leave. Raises what Repo.begin_turn does.
        """
        if self.draining:
            raise Unavailable("The server is shutting down. Try again shortly.")
        turn = Turn(
            id=new_id("turn"),
            session_id=session_id or new_id("sess"),
            user_message_id=new_id("msg"),
            message_id=new_id("msg"),
            state="running",
            attempt=1,
            epoch=1,
            recoveries=0,
            last_seq=None,
            outcome=None,
        )
        run = Run(self, turn)
        request = (turn.session_id, owner, character_id, content)
        self._start(run, run.begin_and_answer(request, new_session=session_id is None))
        await asyncio.shield(run.begun)
        return run

    def resume(self, turn: Turn, events: list[tuple[int, str]]) -> Run:
        """Go on with a turn whose process died, from what it had published."""
        run = Run(self, turn)
        for _, data in events:
            run.log.committed(data, json.loads(data))
        run.reply = Reply("".join(run.log.text))
        self._start(run, run.answer())
        return run

    def _start(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        self.running[run.turn.id] = run
        run.task = asyncio.create_task(work)
        run.task.add_done_callback(lambda _: self.running.pop(run.turn.id))

    async def stop(self, turn_id: str) -> None:
        """Stop a turn if this process runs it, and wait for its end; raises Unavailable if that takes too long."""
        if run := self.running.get(turn_id):
            run.stop()
            _, running = await asyncio.wait([run.task], timeout=STOP_TIMEOUT)
            if running:
                raise Unavailable

    async def drain(self) -> None:
        """Begin nothing more; let turns end, for a while. The others stay in the database, for the next process."""
        self.draining = True
        if tasks := [run.task for run in self.running.values()]:
            logger.info("turns running: %d; waiting %g s for them", len(tasks), self.config.drain_timeout)
            await asyncio.wait(tasks, timeout=self.config.drain_timeout)
        for run in list(self.running.values()):
            logger.info("%s goes on with the next start", run.turn.id)
            run.task.cancel()
            await asyncio.wait([run.task])
