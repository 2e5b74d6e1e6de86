"""What comes in and what goes out, field by field, and described; unknown keys are errors that name themselves."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_dump, pre_load, validate

from chatd.models import Message, Session
from chatd.sse import clean

MAX_TEXT = 10_000  # code points
MAX_TITLE = 200
SESSION_ID = re.compile(r"sess-[0-9a-f]{32}")
# How the API's description gives the forms of ids; its handlers check them.
SESSION_ID_FORM = {"pattern": f"^{SESSION_ID.pattern}$"}
MESSAGE_ID_FORM = {"pattern": "^msg-[0-9a-f]{32}$"}
TURN_ID_FORM = {"pattern": "^turn-[0-9a-f]{32}$"}
AUDIT_CURSOR_FORM = {"pattern": "^[0-9]{1,18}$"}
SESSIONS_CURSOR_FORM = {"pattern": f"^[0-9]{{1,17}}\\.{SESSION_ID.pattern}$"}


USAGE = {
    "description": "Tokens as the model's server counts them, by kind; null where that is not known.",
    "type": ["object", "null"],
}


class StrictInteger(fields.Integer):
    """A JSON integer: no boolean, no float, no string."""

    def _validated(self, value: Any) -> int:
        if type(value) is not int:
            raise self.make_error("invalid", input=value)
        return value


class Text(fields.String):
    """A string of at most `limit` characters that PostgreSQL can hold."""

    def __init__(self, limit: int, *, blank: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limit, self.blank = limit, blank

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if not self.blank and not text.strip():
            raise ValidationError("Must not be empty.")
        if len(text) > self.limit:
            raise ValidationError(f"Must have at most {self.limit} characters; has {len(text)}.")
        return clean(text)


class Time(fields.Field[datetime]):
    """A time as RFC 3339 in UTC."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return value and value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")  # type: ignore[no-any-return]


def about(description: str, **form: Any) -> dict[str, Any]:
    """Return a field's metadata: what the API's description says of it, beside what follows from its type."""
    return {"description": description, **form}


def character_id() -> StrictInteger:
    metadata = about("The number that the application speaks for; a session keeps its own.")
    return StrictInteger(required=True, validate=validate.Range(1, 2**63 - 1), metadata=metadata)


class ChatRequest(Schema):
    """A message to be answered."""

    message = Text(
        MAX_TEXT, required=True, metadata=about("What the user says; kept as it is, with blanks at its ends.")
    )
    session_id = fields.String(
        load_default=None,
        allow_none=True,
        metadata=about("The session that it goes on with; without one a session is made.", **SESSION_ID_FORM),
    )
    character_id = character_id()


class SessionRequest(Schema):
    """A session to be made."""

    character_id = character_id()
    title = Text(MAX_TITLE, load_default=None, allow_none=True, metadata=about("A name for people."))
    system_prompt = Text(
        MAX_TEXT,
        blank=True,
        load_default=None,
        allow_none=True,
        metadata=about("What the model is told first, in place of the server's own; the session's first message."),
    )


class RenameRequest(Schema):
    """A session's new name."""

    title = Text(MAX_TITLE, required=True, allow_none=True, metadata=about("A name for people; null takes it away."))


class TicketRequest(Schema):
    """A ticket that is asked for."""

    session_id = fields.String(required=True, metadata=about("The session whose streams it opens.", **SESSION_ID_FORM))


class Page(Schema):
    class Meta:
        unknown = EXCLUDE

    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000), metadata=about("So many at most."))
    before = fields.String(load_default=None, metadata=about("The `next` of the page before.", **SESSIONS_CURSOR_FORM))

    @pre_load
    def limit_is_short(self, data: Mapping[str, str], **_: Any) -> Mapping[str, str]:
        if not re.fullmatch(r"-?[0-9]{1,9}", data.get("limit", "1")):
            raise ValidationError({"limit": ["Not a valid integer."]})
        return data


class AuditPage(Page):
    before = fields.String(load_default=None, metadata=about("The `next` of the page before.", **AUDIT_CURSOR_FORM))


class HistoryPage(Page):
    before = fields.String(load_default=None, metadata=about("Only messages before this one.", **MESSAGE_ID_FORM))
    after = fields.String(load_default=None, metadata=about("Only messages after this one.", **MESSAGE_ID_FORM))


def one_of(*values: str, description: str = "") -> fields.String:
    """Return a field of an answer that is one of some words."""
    metadata = about(description) if description else {}
    return fields.String(required=True, metadata={**metadata, "enum": list(values)})


def session_status() -> fields.String:
    return one_of(
        *("idle", "thinking", "executing", "error"),
        description="What the session does: `thinking` while a turn runs, `error` when the last one failed. "
        "`executing` is kept for tools.",
    )


class Outgoing(Schema):
    """What goes out is described, not checked; that a client ignores what it does not know lets more be added."""

    class Meta:
        unknown = EXCLUDE


class SessionSchema(Outgoing):
    """A conversation."""

    session_id = fields.String(attribute="id", required=True, metadata=about("Its id.", **SESSION_ID_FORM))
    character_id = fields.Integer(required=True, metadata=about("The character that it belongs to."))
    title = fields.String(required=True, allow_none=True, metadata=about("A name for people."))
    status = session_status()
    message_count = fields.Integer(required=True, metadata=about("How many messages it has."))
    created_at = Time(required=True, metadata=about("When it was made."))
    updated_at = Time(required=True, metadata=about("When something last happened in it."))


class MessageSchema(Outgoing):
    """An entry of a session."""

    id = fields.String(required=True, metadata=about("Its id.", **MESSAGE_ID_FORM))
    role = one_of("user", "assistant", "system", description="Who says it.")
    content = fields.String(required=True, metadata=about("Its text."))
    content_blocks = fields.Raw(
        required=True,
        metadata=about("The same as the model's server gives it, in parts.", type="array", items={"type": "object"}),
    )
    created_at = Time(required=True, metadata=about("When it was saved."))
    token_usage = fields.Raw(required=True, metadata=USAGE)
    status = one_of(
        *("complete", "stopped", "interrupted"),
        description="Of an answer: whether it is whole, was stopped by somebody, or broke off. Others are complete.",
    )
    model = fields.String(required=True, allow_none=True, metadata=about("Which model said it."))
    stop_reason = fields.String(required=True, allow_none=True, metadata=about("Why the model ended, in its words."))

    @post_dump
    def plain_text(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if data["content_blocks"] is None:
            data["content_blocks"] = [{"type": "text", "text": data["content"]}] if data["content"] else []
        return data


class MeSchema(Outgoing):
    """Whom a token speaks for."""

    owner = fields.String(required=True, metadata=about("The name that sessions belong to."))
    characters = fields.List(
        fields.Integer(), required=True, allow_none=True, metadata=about("As which characters; null: as any.")
    )
    admin = fields.Boolean(required=True, metadata=about("Whether it may read the audit, and any session."))
    expires_at = Time(required=True, allow_none=True, metadata=about("When it ends; null: never."))


class AuditEntry(Outgoing):
    """Something that was done."""

    seq = fields.Integer(required=True, metadata=about("Its number; there are no gaps."))
    at = Time(required=True, metadata=about("When it was done."))
    owner = fields.String(
        required=True,
        allow_none=True,
        metadata=about("By whom; the id alone where the name was erased; null where nobody is known."),
    )
    owner_id = fields.String(required=True, allow_none=True, metadata=about("The owner's id, which outlives the name."))
    action = fields.String(required=True, metadata=about("What was done, such as `session.create`."))
    object = fields.String(required=True, allow_none=True, metadata=about("To what: an id."))
    request_id = fields.String(required=True, allow_none=True, metadata=about("The `X-Request-ID` of the request."))
    address = fields.String(required=True, allow_none=True, metadata=about("Where the request came from."))
    outcome = fields.String(required=True, metadata=about("`ok`, or why not."))


def respond(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON response."""
    return respond_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")), status, headers)


def respond_text(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a response that is JSON already."""
    return web.Response(
        body=text.encode(), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


SESSION = SessionSchema()
MESSAGE = MessageSchema()


def dump_session(session: Session) -> dict[str, Any]:
    return dict(SESSION.dump(session))


def dump_message(message: Message) -> dict[str, Any]:
    return dict(MESSAGE.dump(message))
