"""What a turn ends with: the message that is saved, and the last event, which tells the end."""

from dataclasses import dataclass
from typing import Any

from chatd.failures import TEXTS
from chatd.models import Answer, Turn
from chatd.reply import Reply
from chatd.sse import encode
from chatd.turn_log import apply_event

STATUSES = {"failed": "interrupted", "done": "complete", "stopped": "stopped"}  # a turn's state: its message's status


@dataclass(frozen=True, slots=True)
class Ending:
    """How a turn ended here: what it has shown and is about to show, the model's reply, the code of a failure."""

    turn: Turn
    shown: list[str]
    events: list[dict[str, Any]]  # not yet written
    seq: int  # of the last event that is written
    reply: Reply
    failure: str | None


def conclude(ending: Ending) -> tuple[Answer, dict[str, Any]]:
    """Return what is saved and the last event; the text saved is the text shown."""
    pieces = list(ending.shown)
    for pending in ending.events:
        apply_event(pieces, pending)
    text, reply = "".join(pieces), ending.reply
    state = "failed" if ending.failure else "done" if reply.complete else "stopped"
    saved = bool(text) or state == "done"
    last = last_event(ending, STATUSES[state], ending.turn.message_id if saved else None, len(text))
    answer = Answer(
        state=state,
        text=text if saved else None,
        last_event=encode(last),
        last_seq=ending.seq + len(ending.events) + 1,
        message_status=STATUSES[state],
        content_blocks=reply.content_blocks(),
        model=reply.model,
        stop_reason=reply.stop_reason,
        token_usage=reply.usage,
        upstream_id=reply.request_id,
    )
    return answer, last


def last_event(ending: Ending, status: str, message_id: str | None, length: int) -> dict[str, Any]:
    """Return the event that tells readers how the turn ended: `error` after a failure, else `done`."""
    if ending.failure:
        return {"type": "error", "error": TEXTS[ending.failure], "code": ending.failure, "message_id": message_id}
    return {
        "type": "done",
        "message_id": message_id,
        "status": status,
        "stop_reason": ending.reply.stop_reason,
        "token_usage": ending.reply.usage,
        "length": length,
    }
