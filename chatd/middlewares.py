"""What every request passes: its id, and who it speaks for."""

import re
import secrets

from aiohttp import web

from chatd.config import is_loopback
from chatd.errors import Forbidden, Handler
from chatd.keys import CONFIG, OWNER, REQUEST_ID

CALLERS_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(:[0-9]*)?")
ANONYMOUS = "anonymous"


@web.middleware
async def request_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take over the caller's X-Request-ID, or make one."""
    given = request.headers.get("X-Request-ID", "")
    request[REQUEST_ID] = given if CALLERS_ID.fullmatch(given) else secrets.token_hex(16)
    return await handler(request)


async def add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Put the id on the response, streams included, which are prepared within their handlers."""
    response.headers["X-Request-ID"] = request.get(REQUEST_ID) or secrets.token_hex(16)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Without tokens everyone is `anonymous`, and only this host's own programs are anyone.

    A foreign Host is a web page that had its name point here (DNS rebinding); a Forwarded header, a proxy in front.
    """
    if not request.app[CONFIG].allow_anonymous:
        match = HOST.fullmatch(request.headers.get("Host", ""))
        if match is None or not is_loopback(match[1]):
            raise Forbidden("Without tokens chatd answers to localhost only (see CHATD_ALLOW_ANONYMOUS).")
        if "Forwarded" in request.headers or "X-Forwarded-For" in request.headers:
            raise Forbidden("Without tokens chatd answers to no proxy (see CHATD_ALLOW_ANONYMOUS).")
    request[OWNER] = ANONYMOUS
    return await handler(request)
