"""Every way in which chatd says no: one class a code, each made a problem document (RFC 9457)."""

import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ConfigError(Exception):
    """A setting or an installation that has to be mended before chatd can start."""


class StartError(Exception):
    """What keeps chatd from starting though nothing is wrong with its settings."""


class ChatdError(Exception):
    """A failure that a client is told of; `extra` joins the problem document."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    detail: ClassVar[str] = "Something went wrong here. It has been logged."
    headers: ClassVar[dict[str, str]] = {}
    limit: str | None = None  # which one was reached, if that is what it is

    def __init__(self, detail: str | None = None, more_headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail or self.detail)
        self.more_headers = more_headers or {}
        self.extra = extra


class Unauthorized(ChatdError):
    """No token, or none that is accepted: which of the two, and no more, is told."""

    status = 401
    code = "unauthorized"
    detail = "The token is not accepted."
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class NoToken(Unauthorized):
    detail = "Send a token: Authorization: Bearer TOKEN."
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": "Bearer"}


class InvalidRequest(ChatdError):
    status = 400
    code = "invalid_request"
    detail = "The request is not valid."


class Forbidden(ChatdError):
    status = 403
    code = "forbidden"
    detail = "This is not allowed."


class CharacterForbidden(ChatdError):
    status = 403
    code = "character_forbidden"
    detail = "This session belongs to another character."


class NotYourCharacter(CharacterForbidden):
    detail = "The token does not speak for this character."


class NotFound(ChatdError):
    status = 404
    code = "not_found"
    detail = "There is nothing here, or it is not yours."


class MethodNotAllowed(ChatdError):
    status = 405
    code = "method_not_allowed"
    detail = "This path does not allow this method."


class TooLarge(ChatdError):
    status = 413
    code = "too_large"
    detail = "The body must not be larger than 256 KiB."


class UnsupportedMediaType(ChatdError):
    status = 415
    code = "unsupported_media_type"
    detail = "Send JSON, with Content-Type: application/json."


class TurnInProgress(ChatdError):
    status = 409
    code = "turn_in_progress"
    detail = "The session is still answering the previous message."


class IdempotencyMismatch(ChatdError):
    status = 422
    code = "idempotency_mismatch"
    detail = "This Idempotency-Key was used for a different request."


class RateLimited(ChatdError):
    """An owner asks for more than there is for one: made by chatd.limits.refusal."""

    status = 429
    code = "rate_limited"
    detail = "This is more than is allowed at the moment."


class UpstreamFailed(ChatdError):
    status = 502
    code = "upstream_failed"
    detail = "The model could not answer."


class Unavailable(ChatdError):
    """The database can't be reached or does not answer in time; nothing was written."""

    status = 503
    code = "unavailable"
    detail = "The database is not available. Try again shortly."
    headers: ClassVar[dict[str, str]] = {"Retry-After": "2"}


class InDoubt(Unavailable):
    """The connection was lost, or ran out of time, with a statement under way: it may have been done.

    `backend` is the process id of the connection's other end.
    """

    def __init__(self, backend: int) -> None:
        super().__init__()
        self.backend = backend


class TooManyTurns(Unavailable):
    """This process runs as many turns as it may."""

    limit = "process_turns"
    detail = "The server is at capacity. Try again shortly."


class KeyTaken(Exception):
    """Another request has used this idempotency key."""


class SlotTaken(Exception):
    """Another turn of the owner's has taken this slot just now."""


HTTP_ERRORS: dict[int, type[ChatdError]] = {
    error.status: error for error in (InvalidRequest, NotFound, MethodNotAllowed, TooLarge, UnsupportedMediaType)
}


def problem(error: ChatdError) -> web.Response:
    """Return the problem document of an error."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": str(error),
        "code": error.code,
        **error.extra,
    }
    return web.Response(
        status=error.status,
        headers={**error.headers, **error.more_headers},
        body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
        content_type="application/problem+json",
    )


def from_http(error: web.HTTPException) -> web.Response:
    """Return the problem document for what aiohttp itself refused, its headers (Allow) kept."""
    kind = HTTP_ERRORS.get(error.status, InvalidRequest)
    response = problem(kind())
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
