"""What the description says of a route: the form of a row of chatd.openapi.operations, and what many rows have."""

from dataclasses import dataclass

from marshmallow import Schema

from chatd.errors import (
    CharacterForbidden,
    ChatdError,
    IdempotencyMismatch,
    NotFound,
    RateLimited,
    TurnInProgress,
    Unavailable,
)

STREAM = "text/event-stream"
Errors = tuple[type[ChatdError], ...]


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """A response when all is well; without a schema there is no body.

    `headers` are names of HEADERS in chatd.openapi.parameters. The schema of a stream is that of each of its events.
    """

    description: str
    schema: type[Schema] | str | None = None
    media_type: str = "application/json"
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """A route. `parameters` are names of PARAMETERS in chatd.openapi.parameters; `ticket`: a ticket opens it, too;
    `local`: this host's own programs need no token.

    Its examples are in chatd.openapi.examples.
    """

    summary: str
    responses: dict[int, ResponseInfo]
    errors: Errors = ()
    query: type[Schema] | None = None
    parameters: tuple[str, ...] = ()
    body: type[Schema] | None = None
    ticket: bool = False
    local: bool = False
    tag: str = "host"
    description: str = ""


TAGS = {
    "chat": "A message, its answer, and what was said before.",
    "sessions": "Conversations: made, found, named, deleted.",
    "access": "Who asks, and how an EventSource signs in.",
    "audit": "Who did what; for admins.",
    "host": "For what runs chatd and looks after it.",
    "page": "The web page and this description, for everyone.",
}
TURN_ERRORS: Errors = (CharacterForbidden, NotFound, TurnInProgress, IdempotencyMismatch, RateLimited, Unavailable)
QUOTAS = ("RateLimit", "RateLimit-Policy")
SESSION_ERRORS: Errors = (NotFound, Unavailable)
CACHED = ("ETag",)
NOT_CHANGED = {304: ResponseInfo("It is as If-None-Match says.", headers=CACHED)}
