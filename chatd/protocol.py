"""aiohttp's own answers made problem documents: to what is no HTTP, and what fails outside of the middlewares.

It has no hook for these, so two methods of its connections are replaced, here and nowhere else.
"""

from aiohttp import web

from chatd.errors import ChatdError, InvalidRequest, from_http, problem
from chatd.headers import SECURITY, SERVER
from chatd.logs import new_request_id

log_error = web.RequestHandler.handle_error
send = web.RequestHandler.finish_response


def handle_error(
    self: web.RequestHandler,
    request: web.BaseRequest,
    status: int = 500,
    exc: BaseException | None = None,
    message: str | None = None,
) -> web.StreamResponse:
    """Log an error and answer it, without what aiohttp would repeat of the request; the connection is closed.

    Raises ConnectionError where an answer has begun.
    """
    log_error(self, request, status, exc, message)
    response = problem(InvalidRequest("This is not a valid HTTP request.") if status < 500 else ChatdError())
    response.headers.update({**SECURITY, **SERVER, "Cache-Control": "no-store", "X-Request-ID": new_request_id()})
    response.force_close()
    return response


async def finish_response(
    self: web.RequestHandler, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
) -> tuple[web.StreamResponse, bool]:
    """Send a response; the refusal of an Expect that nobody knows comes before the middlewares."""
    if isinstance(resp, web.HTTPExpectationFailed):
        resp = from_http(resp)
    return await send(self, request, resp, start_time)


def install() -> None:
    """Have every connection answer so."""
    web.RequestHandler.handle_error = handle_error  # type: ignore[method-assign]
    web.RequestHandler.finish_response = finish_response  # type: ignore[method-assign]
