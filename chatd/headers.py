"""What every response says: how a browser is to treat it, and its request's id."""

from collections.abc import Mapping

from aiohttp import web

from chatd.errors import ChatdError, InvalidRequest, problem
from chatd.keys import REQUEST_ID
from chatd.logs import new_request_id

DENIED = ("accelerometer", "camera", "geolocation", "gyroscope", "magnetometer", "microphone", "payment", "usb")
SECURITY: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in DENIED),
}
SERVER = {"Server": "chatd"}  # or aiohttp would tell its version and Python's


async def add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Put them on a response, streams included, which are prepared within their handlers; a handler's own stay."""
    for name, value in SECURITY.items():
        response.headers.setdefault(name, value)
    if request.path.startswith("/agent/"):
        response.headers.setdefault("Cache-Control", "no-store")
    response.headers.update(SERVER)
    response.headers["X-Request-ID"] = request.get(REQUEST_ID) or new_request_id()


log_error = web.RequestHandler.handle_error


def handle_error(
    self: web.RequestHandler,
    request: web.BaseRequest,
    status: int = 500,
    exc: BaseException | None = None,
    message: str | None = None,
) -> web.StreamResponse:
    """Answer what is no HTTP, and what no middleware has caught, by a problem document as well.

    aiohttp would repeat what was sent, without the headers; raises ConnectionError where an answer has begun.
    """
    log_error(self, request, status, exc, message)
    response = problem(InvalidRequest("The request is no HTTP.") if status < 500 else ChatdError())
    response.headers.update({**SECURITY, **SERVER, "X-Request-ID": new_request_id()})
    response.force_close()
    return response


web.RequestHandler.handle_error = handle_error  # type: ignore[method-assign]  # there is no hook for this
