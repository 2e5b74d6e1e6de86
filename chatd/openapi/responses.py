"""What goes out and is not made by a schema, described: for the API's description alone, and loaded with it."""

from typing import Any

from marshmallow import fields

from chatd.failures import TEXTS
from chatd.schemas import (
    AUDIT_CURSOR_FORM,
    MESSAGE_ID_FORM,
    SESSION_ID_FORM,
    SESSIONS_CURSOR_FORM,
    TURN_ID_FORM,
    USAGE,
    AuditEntry,
    MessageSchema,
    Outgoing,
    SessionSchema,
    about,
    one_of,
    session_status,
)


def required(kind: type[fields.Field[Any]], description: str, **form: Any) -> fields.Field[Any]:
    """Return a field that is always there."""
    return kind(required=True, metadata=about(description, **form))


def id_of(form: dict[str, str], description: str, *, or_none: bool = False) -> fields.String:
    return fields.String(required=True, allow_none=or_none, metadata=about(description, **form))


def session_id() -> fields.String:
    return id_of(SESSION_ID_FORM, "The session.")


def turn_id() -> fields.String:
    return id_of(TURN_ID_FORM, "The turn.")


def failure_code() -> fields.String:
    return one_of(*TEXTS, description="Why the model could not answer.")


class AnswerSchema(Outgoing):
    """A turn that has ended."""

    session_id = session_id()
    turn_id = turn_id()
    message_id = id_of(MESSAGE_ID_FORM, "The answer; null where it was stopped before its first word.", or_none=True)
    status = session_status()
    message = fields.Nested(
        MessageSchema,
        required=True,
        allow_none=True,
        metadata=about("The answer; null where it was stopped before its first word."),
    )


class Accepted(Outgoing):
    """A turn that goes on."""

    session_id = session_id()
    turn_id = turn_id()
    message_id = id_of(MESSAGE_ID_FORM, "The answer to come.")
    status = one_of("thinking", description="What the session does.")


class Stopped(Outgoing):
    """What stopping has done."""

    session_id = session_id()
    stopped = required(fields.Boolean, "Whether it stopped anything.")
    message_id = id_of(MESSAGE_ID_FORM, "What was saved of the answer; null where there was nothing.", or_none=True)


class History(Outgoing):
    """A page of a session's messages."""

    session_id = session_id()
    status = session_status()
    message_count = required(fields.Integer, "How many messages the session has, on all pages.")
    before = id_of(MESSAGE_ID_FORM, "What to ask the page before this one by; null on the first.", or_none=True)
    messages = fields.List(fields.Nested(MessageSchema), required=True, metadata=about("Oldest first."))


class SessionList(Outgoing):
    """A page of sessions."""

    sessions = fields.List(fields.Nested(SessionSchema), required=True, metadata=about("Latest activity first."))
    next = id_of(SESSIONS_CURSOR_FORM, "What to ask the next page by, as `before`; null on the last.", or_none=True)


class Ticket(Outgoing):
    """What opens a session's streams for a while."""

    ticket = required(fields.String, "What to send as `?ticket=`.")
    session_id = session_id()
    expires_in = required(fields.Integer, "Seconds for which it lives without being used.")


class Audit(Outgoing):
    """A page of the audit."""

    entries = fields.List(fields.Nested(AuditEntry), required=True, metadata=about("Latest first."))
    next = id_of(AUDIT_CURSOR_FORM, "What to ask the next page by, as `before`; null on the last.", or_none=True)


class Health(Outgoing):
    """A process that is alive."""

    status = one_of("ok", description="It answers.")


class Readiness(Outgoing):
    """Whether requests may be sent."""

    status = one_of("ok", "unavailable", description="Whether they may.")
    checks = fields.Dict(
        keys=fields.String(), values=fields.String(), required=True, metadata=about("What was looked at, each.")
    )


class Problem(Outgoing):
    """An error, as RFC 9457 has it."""

    type = required(fields.String, "Always `about:blank`: `code` tells the kind.")
    title = required(fields.String, "The status in words.")
    status = required(fields.Integer, "The status.")
    detail = required(fields.String, "What is wrong, for people.")
    code = required(fields.String, "What is wrong, for programs: it does not change.")
    errors = fields.Dict(
        keys=fields.String(), values=fields.List(fields.String()), metadata=about("What is wrong with each field.")
    )


class TurnProblem(Problem):
    turn_id = fields.String(metadata=about("The turn that runs.", **TURN_ID_FORM))


class AnswerProblem(Problem):
    session_id = session_id()
    turn_id = turn_id()
    message_id = id_of(MESSAGE_ID_FORM, "What was saved of the answer; null where there was nothing.", or_none=True)
    session_status = one_of("error", description="What became of the session.")
    reason = failure_code()


class StartEvent(Outgoing):
    """The turn has begun; always the first."""

    type = one_of("start", description="The kind of event.")
    session_id = session_id()
    turn_id = turn_id()
    message_id = id_of(MESSAGE_ID_FORM, "The answer to come.")
    user_message_id = id_of(MESSAGE_ID_FORM, "The message that is answered.")


class TextEvent(Outgoing):
    """A piece of the answer."""

    type = one_of("text", description="The kind of event.")
    text = required(fields.String, "What comes after the text so far.")


class RetryEvent(Outgoing):
    """The model failed and is about to be asked again; the text so far stands and is continued."""

    type = one_of("retry", description="The kind of event.")
    attempt = required(fields.Integer, "Which attempt comes.")
    max_attempts = required(fields.Integer, "How many there are at most.")
    delay = required(fields.Float, "Seconds until then.")
    reason = failure_code()


class ResetEvent(Outgoing):
    """The text so far is to be forgotten; after a cursor that can't be honoured, or when the model takes it back."""

    type = one_of("reset", description="The kind of event.")
    text = required(fields.String, "All of the text now.")


class DoneEvent(Outgoing):
    """The answer is saved; the only proof that nothing is missing. The last one."""

    type = one_of("done", description="The kind of event.")
    message_id = id_of(MESSAGE_ID_FORM, "The answer; null where it was stopped before its first word.", or_none=True)
    status = one_of("complete", "stopped", description="Whether the answer is whole, or was stopped by somebody.")
    stop_reason = fields.String(required=True, allow_none=True, metadata=about("Why the model ended, in its words."))
    token_usage = fields.Raw(required=True, metadata=USAGE)
    length = required(fields.Integer, "How many code points the answer has.")


class ErrorEvent(Outgoing):
    """The turn has ended without a complete answer. The last one."""

    type = one_of("error", description="The kind of event.")
    error = required(fields.String, "What went wrong, for people.")
    code = failure_code()
    message_id = id_of(MESSAGE_ID_FORM, "What was saved of the answer; null where there was nothing.", or_none=True)


class RequestEvent(Outgoing):
    """How chatd was asked."""

    type = one_of("request", description="The kind of event.")
    http_version = one_of("1.0", "1.1", description="What the proxy, or the client, spoke to chatd.")
    heartbeat = required(fields.Float, "Seconds between heartbeats.")
    silence = required(fields.Float, "Seconds in which nothing else will come, behind the numbers.")


class NumberEvent(Outgoing):
    """One of ten, a tenth of a second apart."""

    type = one_of("number", description="The kind of event.")
    number = required(fields.Integer, "From 1 to 10.")
    at = fields.DateTime(required=True, format="iso", metadata={"description": "When it was sent."})


class EndEvent(Outgoing):
    """Nothing comes after it."""

    type = one_of("end", description="The kind of event.")


TEST_EVENTS = [RequestEvent, NumberEvent, EndEvent]
EVENTS = [StartEvent, TextEvent, RetryEvent, ResetEvent, DoneEvent, ErrorEvent]
