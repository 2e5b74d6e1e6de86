"""The lines of an export: JSON Lines in UTF-8, an object a line, made and checked by the same schemas.

The header; each session, its messages behind it, oldest first; the end, which says how many there were. docs/backup.md
tells what is in them.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from chatd.models import Message, Session
from chatd.requests import refuse_constant, refuse_duplicates
from chatd.schemas import (
    MAX_TITLE,
    MESSAGE_ID_FORM,
    SESSION_ID_FORM,
    StrictInteger,
    Text,
    Time,
)
from chatd.sse import clean_json

FORMAT, VERSION = "chatd export", 1
MAX_LINE = 64 << 20  # bytes: many times the longest answer that a model gives
MAX_REASON = 200
ENDED = ("idle", "error")
YEARS = range(1971, 5000)  # that a cursor of a list has the digits for


class WrongLine(Exception):
    """What is wrong with a line, without the words that it holds."""


class Moment(Time):
    """A time as RFC 3339, with its offset."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None and moment.year in YEARS:
                return moment.astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            pass
        raise ValidationError("Must be a time with its offset, since 1971, like 2026-11-24T15:10:57.885471Z.")


def text(**options: Any) -> fields.String:
    return fields.String(required=True, **options)


def of_form(form: Mapping[str, str]) -> fields.String:
    return text(validate=validate.Regexp(form["pattern"].replace("$", r"\Z"), error="Not a valid id."))


def one_of(*words: str) -> fields.String:
    return text(validate=validate.OneOf(words))


def count(least: int = 0) -> StrictInteger:
    return StrictInteger(required=True, validate=validate.Range(least, 2**63 - 1))


class HeaderLine(Schema):
    format = one_of(FORMAT)
    version = count(1)
    exported_at = Moment(required=True)


class SessionLine(Schema):
    id = of_form(SESSION_ID_FORM)
    owner = text(validate=validate.Length(1))
    character_id = count(1)
    title = Text(MAX_TITLE, blank=True, required=True, allow_none=True)
    status = one_of(*ENDED)
    message_count = count()
    created_at = Moment(required=True)
    updated_at = Moment(required=True)


class MessageLine(Schema):
    id = of_form(MESSAGE_ID_FORM)
    role = one_of("user", "assistant", "system")
    content = text()
    content_blocks = fields.List(fields.Dict(), required=True, allow_none=True)
    status = one_of("complete", "stopped", "interrupted")
    model = text(allow_none=True)
    stop_reason = text(allow_none=True)
    token_usage = fields.Dict(required=True, allow_none=True)
    created_at = Moment(required=True)
    session_id = of_form(SESSION_ID_FORM)


class EndLine(Schema):
    sessions = count()
    messages = count()


SCHEMAS: dict[str, Schema] = {
    "header": HeaderLine(),
    "session": SessionLine(),
    "message": MessageLine(),
    "end": EndLine(),
}


def dump_line(kind: str, values: Any) -> bytes:
    line = {"type": kind, **SCHEMAS[kind].dump(values)}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def dump_header(now: datetime) -> bytes:
    return dump_line("header", {"format": FORMAT, "version": VERSION, "exported_at": now})


def dump_session(session: Session) -> bytes:
    """A turn that runs is none in the file: its answer is not there."""
    line = {name: getattr(session, name) for name in SCHEMAS["session"].fields}
    return dump_line("session", line | {"status": session.status if session.status in ENDED else "error"})


def dump_message(session_id: str, message: Message) -> bytes:
    line = {name: getattr(message, name, session_id) for name in SCHEMAS["message"].fields}
    return dump_line("message", line)


def load_line(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return a line's type and values; raises WrongLine."""
    values = parse(line)
    kind = values.pop("type", None)
    schema = SCHEMAS.get(kind) if isinstance(kind, str) else None
    if schema is None:
        raise WrongLine(f"type: must be one of: {', '.join(SCHEMAS)}")
    if kind == "header" and type(values.get("version")) is int and values["version"] > VERSION:
        raise WrongLine(f"the file is of version {values['version']}: it takes a newer chatd to import it")
    try:
        return str(kind), dict(schema.load(values))
    except ValidationError as error:
        raise WrongLine(describe(error.messages_dict)) from None


def parse(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode(), parse_constant=refuse_constant, object_pairs_hook=refuse_duplicates)
        value = clean_json(value)
    except (ValueError, RecursionError):
        raise WrongLine("not valid JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise WrongLine("not a JSON object")
    return value


def describe(reasons: Mapping[Any, Any]) -> str:
    """Return the first thing that is wrong, in one line."""
    field, reason = next(iter(reasons.items()))
    while not isinstance(reason, str):
        reason = next(iter(reason.values() if isinstance(reason, dict) else reason))
    return f"{ascii(field)[1:-1][:MAX_REASON]}: {reason[:MAX_REASON]}"
