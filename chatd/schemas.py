"""What comes in and what goes out, field by field; unknown keys are errors that name themselves."""

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_dump, pre_load, validate

from chatd.errors import InvalidRequest, NotFound, TooLarge, UnsupportedMediaType
from chatd.models import Message, Session
from chatd.sse import clean

MAX_TEXT = 10_000  # code points
MAX_TITLE = 200
MAX_BODY = 256 << 10  # bytes
MAX_NAMED, MAX_NAME = 20, 100  # wrong fields that an answer names, and how much of each name
BODY_TIMEOUT = 30.0  # seconds for 256 KiB
SESSION_ID = re.compile(r"sess-[0-9a-f]{32}")
# How the API's description gives the forms of ids; its handlers check them.
SESSION_ID_FORM = {"pattern": f"^{SESSION_ID.pattern}$"}
MESSAGE_ID_FORM = {"pattern": "^msg-[0-9a-f]{32}$"}
TURN_ID_FORM = {"pattern": "^turn-[0-9a-f]{32}$"}
SESSIONS_CURSOR_FORM = {"pattern": f"^[0-9]{{1,17}}\\.{SESSION_ID.pattern}$"}
IDEMPOTENCY_KEY = re.compile(r'"([!-~]{1,255})"|([!#-~][!-~]{0,254})')


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
            raise ValidationError(f"Must have {self.limit} characters at most; has {len(text)}.")
        return clean(text)


class Time(fields.Field[datetime]):
    """A time as RFC 3339 in UTC."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return value and value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")  # type: ignore[no-any-return]


def character_id() -> StrictInteger:
    return StrictInteger(required=True, validate=validate.Range(1, 2**63 - 1))


class ChatRequest(Schema):
    message = Text(MAX_TEXT, required=True)
    session_id = fields.String(load_default=None, allow_none=True, metadata=SESSION_ID_FORM)
    character_id = character_id()


class SessionRequest(Schema):
    character_id = character_id()
    title = Text(MAX_TITLE, load_default=None, allow_none=True)
    system_prompt = Text(MAX_TEXT, blank=True, load_default=None, allow_none=True)


class RenameRequest(Schema):
    title = Text(MAX_TITLE, required=True, allow_none=True)


class TicketRequest(Schema):
    session_id = fields.String(required=True, metadata=SESSION_ID_FORM)


class Page(Schema):
    class Meta:
        unknown = EXCLUDE

    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))
    before = fields.String(load_default=None, metadata=SESSIONS_CURSOR_FORM)

    @pre_load
    def limit_is_short(self, data: Mapping[str, str], **_: Any) -> Mapping[str, str]:
        if not re.fullmatch(r"-?[0-9]{1,9}", data.get("limit", "1")):
            raise ValidationError({"limit": ["Not a valid integer."]})
        return data


class HistoryPage(Page):
    before = fields.String(load_default=None, metadata=MESSAGE_ID_FORM)
    after = fields.String(load_default=None, metadata=MESSAGE_ID_FORM)


def one_of(*values: str) -> fields.String:
    """Return a field of an answer that is one of some words."""
    return fields.String(required=True, metadata={"enum": list(values)})


class Outgoing(Schema):
    """What goes out is described, not checked; that a client ignores what it does not know lets more be added."""

    class Meta:
        unknown = EXCLUDE


class SessionSchema(Outgoing):
    session_id = fields.String(attribute="id", required=True, metadata=SESSION_ID_FORM)
    character_id = fields.Integer(required=True)
    title = fields.String(required=True, allow_none=True)
    status = one_of("idle", "thinking", "executing", "error")
    message_count = fields.Integer(required=True)
    created_at = Time(required=True)
    updated_at = Time(required=True)


class MessageSchema(Outgoing):
    id = fields.String(required=True, metadata=MESSAGE_ID_FORM)
    role = one_of("user", "assistant", "system")
    content = fields.String(required=True)
    content_blocks = fields.Raw(required=True, metadata={"type": "array", "items": {"type": "object"}})
    created_at = Time(required=True)
    token_usage = fields.Raw(required=True, metadata={"type": ["object", "null"]})
    status = one_of("complete", "stopped", "interrupted")
    model = fields.String(required=True, allow_none=True)
    stop_reason = fields.String(required=True, allow_none=True)

    @post_dump
    def plain_text(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if data["content_blocks"] is None:
            data["content_blocks"] = [{"type": "text", "text": data["content"]}] if data["content"] else []
        return data


class MeSchema(Outgoing):
    owner = fields.String(required=True)
    characters = fields.List(fields.Integer(), required=True, allow_none=True)
    admin = fields.Boolean(required=True)
    expires_at = Time(required=True, allow_none=True)


class AuditEntry(Outgoing):
    seq = fields.Integer(required=True)
    at = Time(required=True)
    owner = fields.String(required=True, allow_none=True)
    owner_id = fields.String(required=True, allow_none=True)
    action = fields.String(required=True)
    object = fields.String(required=True, allow_none=True)
    request_id = fields.String(required=True, allow_none=True)
    address = fields.String(required=True, allow_none=True)
    outcome = fields.String(required=True)


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


async def read_body(request: web.Request, schema: type[Schema]) -> dict[str, Any]:
    """Return the checked body; raises UnsupportedMediaType, TooLarge (by aiohttp) and InvalidRequest."""
    if request.content_type != "application/json":
        raise UnsupportedMediaType
    if (request.content_length or 0) > MAX_BODY:
        raise TooLarge
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            body = await request.read()
        data = json.loads(body.decode("utf-8"), parse_constant=refuse_constant, object_pairs_hook=refuse_duplicates)
    except TimeoutError:
        raise InvalidRequest("The body did not come in time.") from None
    except web.RequestPayloadError:
        raise InvalidRequest("The body is not what its headers say.") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not valid JSON in UTF-8.") from None
    if not isinstance(data, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return load(schema, data)


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members; of two with one name another reader might have taken the other."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name is there twice")
    return members


def read_query(request: web.Request, schema: type[Schema]) -> dict[str, Any]:
    return load(schema, dict(request.query))


def load(schema: type[Schema], data: Any) -> dict[str, Any]:
    """Return checked data; raises InvalidRequest with `errors`, a list of what is wrong for each field."""
    try:
        return dict(schema().load(data))
    except ValidationError as error:
        named = list(error.messages_dict.items())[:MAX_NAMED]
        errors = {clean(str(field))[:MAX_NAME]: reasons for field, reasons in named}
        detail = " ".join(f"{field}: {reasons[0]}" for field, reasons in errors.items())
        raise InvalidRequest(detail[:500], errors=errors) from None


def session_id_in(request: web.Request) -> str:
    """Return the path's session id; a malformed one can't exist."""
    return check_session_id(request.match_info["session_id"])


def check_session_id(session_id: str) -> str:
    if not SESSION_ID.fullmatch(session_id):
        raise NotFound
    return session_id


def idempotency_key(request: web.Request) -> str | None:
    """Return the key without its quotes, None where there is none; raises InvalidRequest."""
    given = request.headers.getall("Idempotency-Key", [])
    match = IDEMPOTENCY_KEY.fullmatch(given[0]) if len(given) == 1 else None
    if given and match is None:
        reason = "Must be one key of 1 to 255 visible ASCII characters."
        raise InvalidRequest(f"Idempotency-Key: {reason}", errors={"Idempotency-Key": [reason]})
    return match and (match[1] or match[2])
