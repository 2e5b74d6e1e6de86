"""What is logged under a name, for machines: a closed vocabulary, each event with its fields."""

import logging
from typing import Any

# event: its fields, beside the request's, session's and turn's ids. Seconds and counts are numbers, or null where they
# are not known. docs/logs.md says what they mean.
EVENTS: dict[str, tuple[str, ...]] = {
    "server.listening": ("address", "version"),
    "server.stopping": ("turns",),
    "database.away": ("reason",),
    "database.back": ("seconds",),
    "database.migrating": ("migration",),
    "model.unreachable": ("server", "reason"),
    "model.refused": ("status", "type"),
    "traces.away": ("server",),
    "traces.back": ("server",),
    "http.request": ("method", "path", "status", "bytes", "seconds", "remote"),
    "http.failed": ("method",),
    "turn.retry": ("attempt", "delay_seconds", "reason"),
    "turn.recovered": ("recoveries",),
    "turn.handed_over": (),
    "turn.lost": (),
    "turn.failed": (),
    "turn.ended": (
        *("outcome", "code", "seconds", "first_content_seconds", "waited_seconds", "attempts", "recoveries"),
        *("model", "characters", "events"),
        *("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
    ),
}


def log_event(
    logger: logging.Logger,
    level: int,
    event: str,
    message: str,
    *,
    error: BaseException | None = None,
    **fields: Any,
) -> None:
    """Log an event; `%(field)s` in the message stands for a field. Nobody's words are in any of them."""
    logger.log(level, message, *([fields] if fields else []), extra={"event": event}, exc_info=error, stacklevel=2)
