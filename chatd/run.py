"""The life of a turn: begun in the database, answered by a task of its own, ended in the database."""

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chatd.beginning import Beginning
from chatd.crash import crash_point
from chatd.errors import NotFound
from chatd.failures import UpstreamError
from chatd.journal import Lost, PendingLog
from chatd.limits import count_tokens
from chatd.logs import context_of
from chatd.models import Answer, Turn, TurnRequest
from chatd.outcome import Ending, conclude
from chatd.prompt import Prompt, load_prompt
from chatd.reply import Reply
from chatd.sse import encode
from chatd.turn_report import TurnReport

if TYPE_CHECKING:
    from chatd.turns import Turns

MAX_ATTEMPTS = 3
MAX_RECOVERIES = 10


class Run:
    """One turn being answered."""

    task: asyncio.Task[None]

    def __init__(self, turns: "Turns", turn: Turn) -> None:
        self.turns, self.turn = turns, turn
        self.config, self.repo, self.journal, self.llm = turns.config, turns.repo, turns.journal, turns.llm
        self.log = PendingLog(turn, turns.journal)
        self.reply = Reply()
        self.prompt: Prompt | None = None
        self.attempt = turn.attempt
        self.first_content_at: datetime | None = None
        self.stopping = turn.stop_requested
        self.asking = False
        self.report = TurnReport(turn, turns.config.model, turns.metrics, turns.tracing)
        self.beginning = Beginning(turns, turn)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin the task; all that it logs carries the turn's ids."""
        self.task = asyncio.create_task(work, context=context_of(self.turn))

    def stop(self) -> None:
        """End the turn with what it has: at once where it waits for the model, else when it would begin to."""
        self.stopping = True
        if self.asking:
            self.task.cancel()

    def lose(self) -> None:
        """Leave the turn to the process that has taken it over; where a statement is under way, that will tell."""
        if self.asking:
            self.log.end(lost=True)
            self.task.cancel()

    def hand_over(self) -> None:
        """Leave the turn to the process that will take it over."""
        if self.beginning.made and not self.log.ended:
            self.report.hand_over()
        self.log.end(lost=True)
        self.task.cancel()

    async def begin_and_answer(self, request: TurnRequest) -> None:
        """Begin the turn in the database, tell whoever waits for that, and answer it."""
        turn = self.turn
        start = {
            "type": "start",
            "session_id": turn.session_id,
            "turn_id": turn.id,
            "message_id": turn.message_id,
            "user_message_id": turn.user_message_id,
        }
        data = encode(start)
        begun = False
        try:
            begun = await self.beginning.make(request, data)
        finally:
            if not begun:
                self.log.end(lost=True)
        if begun:
            self.log.committed(data, start)
            self.log.wake()
            self.report.begin()
            if request.begun:
                request.begun(turn)
            await self.answer()

    async def answer(self) -> None:
        """Ask the model and end the turn; a turn that can't be ended here is left to another process."""
        try:
            failure = await self._ask()
            await self._finish(failure)
        except (Lost, NotFound):
            self.report.lose()
        except Exception as error:  # noqa: BLE001 - whatever it is, the turn is left to another process
            self.report.give_up(error)
        finally:
            self.log.end(lost=self.log.turn.state == "running")
            self.journal.tell_followers([self.log])
            self.report.spend(self.reply)

    async def _ask(self) -> str | None:
        """Return None when the answer is complete or was stopped, else the code of the failure."""
        self.asking = True
        try:
            async with asyncio.timeout(self.config.turn_timeout):
                return await self._attempts()
        except TimeoutError:
            return None if self.reply.complete else "turn_timeout"
        except asyncio.CancelledError:
            if not (self.stopping or self.log.lost):
                raise
            self.task.uncancel()
            if self.log.lost:
                raise Lost from None
            return None
        except (Lost, NotFound):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the turn ends by it
            self.report.fail("the turn failed", error)
            return "internal"
        finally:
            self.asking = False

    async def _attempts(self) -> str | None:
        if self.stopping:
            return None
        if self.turn.recoveries > MAX_RECOVERIES:
            return "recovery_limit"
        self.prompt = prompt = await self.journal.insist(self._load_prompt)
        while True:
            try:
                crash_point("before_attempt")
                with self.report.attempt(self.attempt, self.reply):
                    await self._attempt(prompt)
            except UpstreamError as failure:
                if failure.code == "upstream_refusal":
                    self._take_back()
                if not failure.retried or self.attempt >= MAX_ATTEMPTS:
                    return failure.code
                await self._retry(failure.code, failure.wait_after(self.attempt, self.config.retry_factor))
            else:
                return None

    async def _load_prompt(self) -> Prompt:
        return await load_prompt(self.repo, self.turn.session_id, self.config.system_prompt, self.llm.budget)

    async def _attempt(self, prompt: Prompt) -> None:
        """Make one attempt; the clock counts content, and stands still while the journal is full.

        It is set again after a twentieth of its time, not for each piece, and gives that much more.
        """
        now, idle = asyncio.get_running_loop().time, self.config.idle_timeout
        renewal = 0.0
        try:
            async with (
                asyncio.timeout(self.config.first_content_timeout) as clock,
                aclosing(self.llm.stream(prompt, self.reply)) as pieces,
            ):
                async for piece in pieces:
                    crash_point("after_piece")
                    if self.log.lost:
                        raise Lost
                    if piece:
                        self._show(piece)
                    if self.log.is_full():
                        clock.reschedule(None)
                        await self.log.room()
                        renewal = 0.0
                    if now() >= renewal:
                        renewal = now() + idle / 20
                        clock.reschedule(renewal + idle)
        except TimeoutError as error:
            if not self.reply.complete:  # else it was about the end of the body
                raise UpstreamError("upstream_stalled") from error

    def _show(self, piece: str) -> None:
        if self.first_content_at is None:
            self.first_content_at = datetime.now(UTC)
            self.report.show_first()
        self.log.add_text(piece)

    def _take_back(self) -> None:
        if self.reply.text:
            self.log.add_event({"type": "reset", "text": ""})
        self.reply.clear()

    async def _retry(self, reason: str, delay: float) -> None:
        """Record the next attempt, tell of it, and wait until it is due."""
        self.attempt += 1
        turn, attempt = self.turn, self.attempt
        if not await self.journal.insist(lambda: self.repo.record_attempt(turn.id, turn.epoch, attempt)):
            raise Lost
        crash_point("after_record_attempt")
        self.report.retry(attempt, delay, reason)
        told = {"attempt": attempt, "max_attempts": MAX_ATTEMPTS, "delay": delay, "reason": reason}
        self.log.add_event({"type": "retry", **told})
        with self.report.waiting():
            await asyncio.sleep(delay)

    async def _finish(self, failure: str | None) -> None:
        """End the turn in the database, with all that is not yet there, then tell its readers; raises Lost."""
        events = await self.log.withdraw()
        try:
            await self._write_end(events, *self._conclude(failure, events))
        except Lost:
            raise
        except Exception as error:  # noqa: BLE001 - the text is to be saved, whatever it is
            self.report.fail("the turn can't be saved with all that the model sent: saving its text", error)
            answer, last = self._conclude(failure or "internal", events)
            await self._write_end(events, replace(answer, content_blocks=None, token_usage=None), last)

    def _conclude(self, failure: str | None, events: list[dict[str, Any]]) -> tuple[Answer, dict[str, Any]]:
        ending = Ending(self.turn, self.log.text, events, len(self.log.frames), self.reply, failure)
        answer, last = conclude(ending)
        model = answer.model or self.config.model
        shown = "" if answer.state == "done" else answer.text or ""
        tokens = self._count_tokens(answer, shown) if self.config.rate_tokens else None
        return replace(answer, model=model, first_content_at=self.first_content_at, tokens=tokens), last

    def _count_tokens(self, answer: Answer, shown: str) -> int:
        """Count what the turn has used: the prompt where it was stopped before the model's server said anything."""
        if answer.state == "stopped" and self.prompt and not self.reply.usage:
            return self.prompt.tokens()
        return count_tokens(self.reply.usage, shown)

    async def _write_end(self, events: list[dict[str, Any]], answer: Answer, last: dict[str, Any]) -> None:
        rows = [*((encode(event), event) for event in events), (answer.last_event, last)]
        numbered = [(seq, data) for seq, (data, _) in enumerate(rows, len(self.log.frames) + 1)]
        crash_point("before_finish")
        if not await self.journal.insist(lambda: self.repo.finish_turn(self.turn, answer, numbered)):
            stored = await self.journal.insist(lambda: self.repo.find_turn(self.turn.session_id, self.turn.id))
            if stored is None or (stored.epoch, stored.last_event) != (self.turn.epoch, answer.last_event):
                raise Lost
        crash_point("after_finish")
        for data, event in rows:
            self.log.committed(data, event)
        self.log.turn = replace(self.turn, state=answer.state, last_event=answer.last_event, last_seq=answer.last_seq)
        self.report.end(self.attempt, answer, last.get("code"))
