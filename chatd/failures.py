"""How a model's server fails: the codes that clients are told, words for people, and whether trying again may help."""

import logging
import math
from typing import Any

from chatd.log_events import log_event

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER = 30.0  # seconds
RETRIED_STATUSES = {408, 409, 429}
CODES = {408: "unavailable", 409: "unavailable", 429: "rate_limited", 529: "overloaded"}
# In a stream every error is worth another attempt, whatever its name.
ERROR_EVENTS = {"overloaded_error": "overloaded", "rate_limit_error": "rate_limited"}

# What a refusal's type may be: anything else might repeat what was sent.
KINDS = {
    *("invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error"),
    *("request_too_large", "rate_limit_error", "timeout_error", "api_error", "overloaded_error"),
}

TEXTS = {
    "upstream_overloaded": "The model is overloaded. Try again in a while.",
    "upstream_rate_limited": "The model's rate limit is reached. Try again in a while.",
    "upstream_unavailable": "The model's server has a problem. Try again in a while.",
    "upstream_unreachable": "The model's server can't be reached. Try again in a while.",
    "upstream_cut": "The connection to the model was cut before the answer was complete.",
    "upstream_stalled": "The model has stopped answering.",
    "upstream_refused": "The model's server did not accept the request.",
    "upstream_refusal": "The model declined to answer.",
    "turn_timeout": "The answer took too long.",
    "recovery_limit": "The answer was interrupted too often.",
    "internal": "Something went wrong here. It has been logged.",
}


class UpstreamError(Exception):
    """An attempt that failed: why, whether another one may help, and how long the server asks to wait (seconds)."""

    def __init__(
        self, code: str, *, retried: bool = True, retry_after: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(code)
        self.code, self.retried, self.retry_after, self.status = code, retried, retry_after, status

    def wait_after(self, attempt: int, factor: float) -> float:
        """Return the seconds to the next attempt after this one: as the server asks, else twice as many each time."""
        return factor * 2**attempt if self.retry_after is None else self.retry_after


def check(event: Any) -> None:
    """Raise UpstreamError for an error event."""
    if not isinstance(event, dict) or event.get("type") != "error":
        return
    error = event.get("error")
    name = error.get("type") if isinstance(error, dict) else None
    raise UpstreamError(f"upstream_{ERROR_EVENTS.get(str(name), 'unavailable')}")


def from_status(error: Any) -> UpstreamError:
    """Classify an answer with an error status."""
    status = int(error.status_code)
    retried = status in RETRIED_STATUSES or status >= 500
    code = CODES.get(status, "unavailable" if status >= 500 else "refused")
    if code == "refused":  # not its words: they may repeat what was sent
        refused = "the model's server refused a request: %(status)d %(type)s"
        kind = error.type if error.type in KINDS else ""
        log_event(logger, logging.WARNING, "model.refused", refused, status=status, type=kind)
    return UpstreamError(
        f"upstream_{code}",
        retried=retried,
        retry_after=retry_after(error.response.headers.get("retry-after")),
        status=status,
    )


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After asks for, capped; None where it is absent or no number."""
    try:
        wait = float(header or "")
    except ValueError:
        return None
    return min(wait, MAX_RETRY_AFTER) if wait >= 0 and not math.isnan(wait) else None
