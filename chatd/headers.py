"""What every response says: how a browser is to treat it, and its request's id."""

from collections.abc import Mapping

from aiohttp import web

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
