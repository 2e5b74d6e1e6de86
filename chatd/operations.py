"""The API's description, a row a route: what it does, takes and answers. chatd.openapi makes the document of it.

What every route has in common, an error or a header, is not in here but there.
"""

from dataclasses import dataclass, field
from typing import Any

from marshmallow import Schema

from chatd import responses
from chatd.errors import (
    CharacterForbidden,
    ChatdError,
    Forbidden,
    IdempotencyMismatch,
    NotFound,
    RateLimited,
    TurnInProgress,
    Unavailable,
    UpstreamFailed,
)
from chatd.schemas import (
    ChatRequest,
    HistoryPage,
    MeSchema,
    Page,
    RenameRequest,
    SessionRequest,
    SessionSchema,
    TicketRequest,
)

STREAM = "text/event-stream"
Errors = tuple[type[ChatdError], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes when all is well; without a schema there is no body. `headers` are names of HEADERS in chatd.openapi.

    The schema of a stream is that of each of its events.
    """

    description: str
    schema: type[Schema] | str | None = None
    media_type: str = "application/json"
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """A route. `parameters` are names of PARAMETERS in chatd.openapi; `ticket`: a ticket opens it, too.

    `local`: this host's own programs need no token.
    """

    summary: str
    answers: dict[int, Answer]
    errors: Errors = ()
    query: type[Schema] | None = None
    parameters: tuple[str, ...] = ()
    body: type[Schema] | None = None
    example: dict[str, Any] = field(default_factory=dict)
    ticket: bool = False
    local: bool = False


QUESTION = {"message": "What is the capital of France?", "session_id": None, "character_id": 1}
TURN_ERRORS: Errors = (CharacterForbidden, NotFound, TurnInProgress, IdempotencyMismatch, RateLimited, Unavailable)
QUOTAS = ("RateLimit", "RateLimit-Policy")
SESSION_ERRORS: Errors = (NotFound, Unavailable)
CACHED = ("ETag",)
NOT_CHANGED = {304: Answer("It is as If-None-Match says.", headers=CACHED)}

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/agent/chat"): Operation(
        "Post a message and wait for the answer",
        {
            200: Answer("The turn has ended.", responses.Answer, headers=("Idempotency-Replayed", *QUOTAS)),
            202: Answer("The turn goes on.", responses.Accepted, headers=("Location", "Idempotency-Replayed", *QUOTAS)),
        },
        (*TURN_ERRORS, UpstreamFailed),
        parameters=("Idempotency-Key", "Prefer"),
        body=ChatRequest,
        example=QUESTION,
    ),
    ("POST", "/agent/chat/stream"): Operation(
        "Post a message and stream the answer",
        {200: Answer("The turn's events, to its end.", "StreamEvent", STREAM, ("Idempotency-Replayed", *QUOTAS))},
        TURN_ERRORS,
        parameters=("Idempotency-Key",),
        body=ChatRequest,
        example=QUESTION,
    ),
    ("GET", "/agent/chat/stream/{session_id}"): Operation(
        "Attach to the running turn, or go on behind a cursor",
        {
            200: Answer("The events behind the cursor, to the turn's end.", "StreamEvent", STREAM),
            204: Answer("There is nothing (more) to stream."),
        },
        (NotFound, RateLimited),
        parameters=("Last-Event-ID", "last_event_id"),
        ticket=True,
    ),
    ("GET", "/agent/chat/history/{session_id}"): Operation(
        "Read messages, oldest first",
        {200: Answer("The latest messages, or those before or after one: not both.", responses.History)},
        SESSION_ERRORS,
        query=HistoryPage,
    ),
    ("POST", "/agent/chat/stop/{session_id}"): Operation(
        "Stop the running turn and keep its text",
        {200: Answer("Nothing runs there now.", responses.Stopped, headers=QUOTAS)},
        (*SESSION_ERRORS, RateLimited),
    ),
    ("POST", "/agent/stream-ticket"): Operation(
        "Make a ticket for a session's streams",
        {201: Answer("The ticket.", responses.Ticket, headers=QUOTAS)},
        (*SESSION_ERRORS, RateLimited),
        body=TicketRequest,
    ),
    ("POST", "/agent/session"): Operation(
        "Make a session",
        {201: Answer("The session.", SessionSchema, headers=("Location", *QUOTAS))},
        (CharacterForbidden, RateLimited, Unavailable),
        body=SessionRequest,
        example={"character_id": 1, "title": "Capitals", "system_prompt": "Answer in one sentence."},
    ),
    ("GET", "/agent/sessions"): Operation(
        "List sessions, latest activity first",
        {200: Answer("The sessions, and the cursor of the next page.", responses.SessionList)},
        (Unavailable,),
        query=Page,
    ),
    ("GET", "/agent/session/{session_id}"): Operation(
        "Read a session", {200: Answer("The session.", SessionSchema)}, SESSION_ERRORS
    ),
    ("PATCH", "/agent/session/{session_id}"): Operation(
        "Rename a session",
        {200: Answer("The session.", SessionSchema, headers=QUOTAS)},
        (*SESSION_ERRORS, RateLimited),
        body=RenameRequest,
        example={"title": "Capitals of Europe"},
    ),
    ("DELETE", "/agent/session/{session_id}"): Operation(
        "Delete a session with all its messages", {204: Answer("It is gone.")}, SESSION_ERRORS
    ),
    ("GET", "/agent/me"): Operation(
        "Read what the token says", {200: Answer("Whom it speaks for, as which characters, and how long.", MeSchema)}
    ),
    ("GET", "/agent/audit"): Operation(
        "Read the audit, latest entry first; for admins",
        {200: Answer("The entries, and the cursor of the next page.", responses.Audit)},
        (Forbidden, Unavailable),
        query=Page,
    ),
    ("GET", "/healthz"): Operation("Is the process alive?", {200: Answer("It is.", responses.Health)}),
    ("GET", "/readyz"): Operation(
        "May it be sent requests?",
        {200: Answer("It may.", responses.Readiness), 503: Answer("It may not, now.", responses.Readiness)},
    ),
    ("GET", "/metrics"): Operation(
        "Read the metrics; for admins and this host's own programs",
        {200: Answer("In Prometheus' text format, or in OpenMetrics.", "File", "text/plain")},
        (Forbidden,),
        local=True,
    ),
    ("GET", "/openapi.json"): Operation("Read this document", {200: Answer("OpenAPI 3.1.", "Document")}),
    ("GET", "/"): Operation(
        "Open the web page", {200: Answer("The page.", "File", "text/html", CACHED), **NOT_CHANGED}
    ),
    ("GET", "/web/{path:.+}"): Operation(
        "Read one of the page's files",
        {200: Answer("The file.", "File", "*/*", CACHED), **NOT_CHANGED},
        (NotFound,),
        parameters=("path",),
    ),
    ("GET", "/favicon.ico"): Operation(
        "Read the page's icon", {200: Answer("The icon.", "File", "image/x-icon", CACHED), **NOT_CHANGED}
    ),
}
