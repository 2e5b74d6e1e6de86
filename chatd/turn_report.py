"""What befalls a turn, told to logs, metrics and traces, and a line at its end."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from chatd.log_events import log_event
from chatd.logs import ids_of
from chatd.metrics import Metrics
from chatd.models import Answer, Turn
from chatd.parsing import MODEL
from chatd.reply import Reply

if TYPE_CHECKING:
    from chatd.traces import Tracing

logger = logging.getLogger(__name__)

TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
ENDED = "turn ended: %(outcome)s"


class TurnReport:
    """Tells logs, metrics and traces what befalls a turn. Its times are in seconds, by the loop's clock."""

    def __init__(self, turn: Turn, model: str, metrics: Metrics, tracing: "Tracing | None") -> None:
        self.turn, self.model, self.metrics = turn, model, metrics
        self.span = tracing.begin(turn) if tracing else None
        self.now = asyncio.get_running_loop().time
        self.begun = self.now()
        self.first_content: float | None = None
        self.waited = 0.0
        self.handed_over = False

    def attempt(self, number: int, reply: Reply) -> AbstractContextManager[None]:
        """Return the block of an attempt."""
        return self.span.attempt(number, reply) if self.span else nullcontext()

    def begin(self) -> None:
        self.metrics.turns.begun.inc()

    def spend(self, reply: Reply) -> None:
        """Count what all attempts of this process have used."""
        self.metrics.model.spend(reply.model or self.model, reply.usage)

    def show_first(self) -> None:
        self.first_content = self.now() - self.begun
        self.metrics.turns.first_content.observe(self.first_content)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block's time as waited for the next attempt, however it ends."""
        begun = self.now()
        try:
            yield
        finally:
            self.waited += self.now() - begun

    def retry(self, attempt: int, delay: float, reason: str) -> None:
        self.metrics.turns.retries.labels(reason).inc()
        message = "attempt %(attempt)d in %(delay_seconds)g s after %(reason)s"
        log_event(logger, logging.INFO, "turn.retry", message, attempt=attempt, delay_seconds=delay, reason=reason)

    def hand_over(self) -> None:
        self.handed_over = True
        going = "the turn goes on with the next process"
        log_event(logger, logging.INFO, "turn.handed_over", going, **ids_of(self.turn))
        self._end_span("handed_over")

    def lose(self) -> None:
        if not self.handed_over:
            self.metrics.turns.lost.inc()
            log_event(logger, logging.WARNING, "turn.lost", "the turn is no longer run here")
            self._end_span("lost")

    def fail(self, what: str, error: BaseException) -> None:
        self.metrics.errors.inc()
        log_event(logger, logging.ERROR, "turn.failed", what, error=error)

    def give_up(self, error: BaseException) -> None:
        """Tell that the turn can't be ended here, so that another process has to."""
        self.fail("the turn can't be ended here", error)
        self._end_span("lost")

    def end(self, attempts: int, answer: Answer, code: str | None) -> None:
        """Log the turn's one line at its end; only numbers and names of what the model's server said."""
        seconds = self.now() - self.begun
        self.metrics.turns.end(answer.state, code or "ok", seconds)
        log_event(
            logger,
            logging.WARNING if code else logging.INFO,
            "turn.ended",
            ENDED,
            outcome=answer.state,
            code=code,
            seconds=round(seconds, 3),
            first_content_seconds=None if self.first_content is None else round(self.first_content, 3),
            waited_seconds=round(self.waited, 3),
            attempts=attempts,
            recoveries=self.turn.recoveries,
            model=known_model(answer.model) or self.model,
            characters=len(answer.text or ""),
            events=answer.last_seq,
            **count_kinds(answer.token_usage),
        )
        self._end_span(answer.state, code, attempts)

    def _end_span(self, outcome: str, code: str | None = None, attempts: int | None = None) -> None:
        if self.span:
            self.span.end(outcome, code, attempts)


def known_model(name: str | None) -> str | None:
    """Return a model's name, None where it is none: the model's server may say anything."""
    return name if name and MODEL.fullmatch(name) else None


def count_kinds(usage: dict[str, Any] | None) -> dict[str, Any]:
    """Return the tokens by kind, None where the model's server did not say a number."""
    counts = {kind: (usage or {}).get(kind) for kind in TOKENS}
    return {kind: count if type(count) is int else None for kind, count in counts.items()}
