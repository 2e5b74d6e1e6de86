"""How a turn goes, as the log tells it: what befalls it, and a line at its end."""

import asyncio
import logging
import re
from typing import Any

from chatd.events import log_event
from chatd.logs import ids_of
from chatd.models import Answer, Turn

logger = logging.getLogger(__name__)

MODEL = re.compile(r"[A-Za-z0-9._:/@+-]{1,64}")
TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
ENDED = "turn ended: %(outcome)s"


class Course:
    """The times of a turn in this process, in seconds by the loop's clock."""

    def __init__(self, turn: Turn, model: str) -> None:
        self.turn, self.model = turn, model
        self.now = asyncio.get_running_loop().time
        self.begun = self.now()
        self.first_content: float | None = None
        self.waited = 0.0
        self.handed_over = False

    def show_first(self) -> None:
        self.first_content = self.now() - self.begun

    def retry(self, attempt: int, delay: float, reason: str) -> None:
        self.waited += delay
        message = "attempt %(attempt)d in %(delay_seconds)g s after %(reason)s"
        log_event(logger, logging.INFO, "turn.retry", message, attempt=attempt, delay_seconds=delay, reason=reason)

    def hand_over(self) -> None:
        self.handed_over = True
        going = "the turn goes on with the next process"
        log_event(logger, logging.INFO, "turn.handed_over", going, **ids_of(self.turn))

    def lose(self) -> None:
        if not self.handed_over:
            log_event(logger, logging.WARNING, "turn.lost", "the turn is no longer run here")

    def fail(self, what: str, error: BaseException) -> None:
        log_event(logger, logging.ERROR, "turn.failed", what, error=error)

    def end(self, attempts: int, answer: Answer, code: str | None) -> None:
        """Log the turn's one line at its end; only numbers and names of what the model's server said."""
        log_event(
            logger,
            logging.WARNING if code else logging.INFO,
            "turn.ended",
            ENDED,
            outcome=answer.state,
            code=code,
            seconds=round(self.now() - self.begun, 3),
            first_content_seconds=None if self.first_content is None else round(self.first_content, 3),
            waited_seconds=round(self.waited, 3),
            attempts=attempts,
            recoveries=self.turn.recoveries,
            model=answer.model if MODEL.fullmatch(answer.model or "") else self.model,
            characters=len(answer.text or ""),
            events=answer.last_seq,
            **count_kinds(answer.token_usage),
        )


def count_kinds(usage: dict[str, Any] | None) -> dict[str, Any]:
    """Return the tokens by kind, None where the model's server did not say a number."""
    counts = {kind: (usage or {}).get(kind) for kind in TOKENS}
    return {kind: count if type(count) is int else None for kind, count in counts.items()}
