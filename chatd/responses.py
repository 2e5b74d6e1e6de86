"""What goes out and is not made by a schema, described: for the API's description alone, and loaded with it."""

from marshmallow import fields

from chatd.failures import TEXTS
from chatd.schemas import (
    MESSAGE_ID_FORM,
    SESSION_ID_FORM,
    SESSIONS_CURSOR_FORM,
    TURN_ID_FORM,
    AuditEntry,
    MessageSchema,
    Outgoing,
    SessionSchema,
    one_of,
)

USAGE = {"type": ["object", "null"]}


def id_of(form: dict[str, str], *, or_none: bool = False) -> fields.String:
    return fields.String(required=True, allow_none=or_none, metadata=form)


def failure_code() -> fields.String:
    return one_of(*TEXTS)


class Answer(Outgoing):
    """A turn that has ended."""

    session_id = id_of(SESSION_ID_FORM)
    turn_id = id_of(TURN_ID_FORM)
    message_id = id_of(MESSAGE_ID_FORM, or_none=True)
    status = one_of("idle", "thinking", "executing", "error")
    message = fields.Nested(MessageSchema, required=True, allow_none=True)


class Accepted(Outgoing):
    """A turn that goes on."""

    session_id = id_of(SESSION_ID_FORM)
    turn_id = id_of(TURN_ID_FORM)
    message_id = id_of(MESSAGE_ID_FORM)
    status = one_of("thinking")


class Stopped(Outgoing):
    session_id = id_of(SESSION_ID_FORM)
    stopped = fields.Boolean(required=True)
    message_id = id_of(MESSAGE_ID_FORM, or_none=True)


class History(Outgoing):
    session_id = id_of(SESSION_ID_FORM)
    status = one_of("idle", "thinking", "executing", "error")
    message_count = fields.Integer(required=True)
    before = id_of(MESSAGE_ID_FORM, or_none=True)
    messages = fields.List(fields.Nested(MessageSchema), required=True)


class SessionList(Outgoing):
    sessions = fields.List(fields.Nested(SessionSchema), required=True)
    next = fields.String(required=True, allow_none=True, metadata=SESSIONS_CURSOR_FORM)


class Ticket(Outgoing):
    ticket = fields.String(required=True)
    session_id = id_of(SESSION_ID_FORM)
    expires_in = fields.Integer(required=True)


class Audit(Outgoing):
    entries = fields.List(fields.Nested(AuditEntry), required=True)
    next = fields.String(required=True, allow_none=True, metadata={"pattern": "^[0-9]{1,18}$"})


class Health(Outgoing):
    status = one_of("ok")


class Readiness(Outgoing):
    status = one_of("ok", "unavailable")
    checks = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class Problem(Outgoing):
    """RFC 9457."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    code = fields.String(required=True)
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))


class TurnProblem(Problem):
    turn_id = fields.String(metadata=TURN_ID_FORM)


class AnswerProblem(Problem):
    session_id = id_of(SESSION_ID_FORM)
    turn_id = id_of(TURN_ID_FORM)
    message_id = id_of(MESSAGE_ID_FORM, or_none=True)
    session_status = one_of("error")
    reason = failure_code()


class StartEvent(Outgoing):
    type = one_of("start")
    session_id = id_of(SESSION_ID_FORM)
    turn_id = id_of(TURN_ID_FORM)
    message_id = id_of(MESSAGE_ID_FORM)
    user_message_id = id_of(MESSAGE_ID_FORM)


class TextEvent(Outgoing):
    type = one_of("text")
    text = fields.String(required=True)


class RetryEvent(Outgoing):
    type = one_of("retry")
    attempt = fields.Integer(required=True)
    max_attempts = fields.Integer(required=True)
    delay = fields.Float(required=True)
    reason = failure_code()


class ResetEvent(Outgoing):
    type = one_of("reset")
    text = fields.String(required=True)


class DoneEvent(Outgoing):
    type = one_of("done")
    message_id = id_of(MESSAGE_ID_FORM, or_none=True)
    status = one_of("complete", "stopped")
    stop_reason = fields.String(required=True, allow_none=True)
    token_usage = fields.Raw(required=True, metadata=USAGE)
    length = fields.Integer(required=True)


class ErrorEvent(Outgoing):
    type = one_of("error")
    error = fields.String(required=True)
    code = failure_code()
    message_id = id_of(MESSAGE_ID_FORM, or_none=True)


class RequestEvent(Outgoing):
    """How chatd was asked; the seconds between heartbeats, and those in which nothing else will come."""

    type = one_of("request")
    http_version = one_of("1.0", "1.1")
    heartbeat = fields.Float(required=True)
    silence = fields.Float(required=True)


class NumberEvent(Outgoing):
    type = one_of("number")
    number = fields.Integer(required=True)
    at = fields.DateTime(required=True, format="iso")


class EndEvent(Outgoing):
    type = one_of("end")


TEST_EVENTS = [RequestEvent, NumberEvent, EndEvent]
EVENTS = [StartEvent, TextEvent, RetryEvent, ResetEvent, DoneEvent, ErrorEvent]
