"""What every request passes: its id, what becomes of a failure, and who it speaks for."""

import logging
import re
import socket
import time

from aiohttp import web

from chatd.errors import ChatdError, Forbidden, Handler, Unavailable, from_http, problem
from chatd.handlers.metrics import get_metrics
from chatd.handlers.stream import get_stream
from chatd.keys import ARRIVED, CALLER, CHECK_TOKEN, CONFIG, METRICS, REQUEST_ID
from chatd.log_events import log_event
from chatd.logs import current_request, new_request_id
from chatd.models import Caller
from chatd.parsing import is_loopback
from chatd.requests import bearer_token

logger = logging.getLogger(__name__)

CALLERS_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(:[0-9]*)?")
ANONYMOUS = "anonymous"
OF_PROXIES = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")
PUBLIC = frozenset({"/", "/favicon.ico", "/healthz", "/readyz", "/openapi.json", "/docs"})
FILES = "/web/"


@web.middleware
async def request_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take over the caller's X-Request-ID, or make one; note when it came."""
    request[ARRIVED] = time.monotonic()
    given = request.headers.get("X-Request-ID", "")
    request[REQUEST_ID] = given if CALLERS_ID.fullmatch(given) else new_request_id()
    current_request.set(request[REQUEST_ID])
    return await handler(request)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure with a problem document; what has begun to stream can only be cut."""
    try:
        return await handler(request)
    except ChatdError as error:
        return problem(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return from_http(error)
    except ConnectionError:
        raise
    except Exception as error:
        request.app[METRICS].errors.inc()
        if request.writer is not None and request.writer.output_size:
            raise
        failed = "a %(method)s request failed unexpectedly"
        log_event(logger, logging.ERROR, "http.failed", failed, method=request.method, error=error)
        return problem(ChatdError())


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who a request speaks for, where that is asked; a ticket is looked up by the handler it is for."""
    if (check_token := request.app.get(CHECK_TOKEN)) is None:
        refuse_strangers(request)
        request[CALLER] = Caller(ANONYMOUS)
    elif not (is_public(request.path) or has_ticket(request) or is_scraped_here(request)):
        try:
            request[CALLER] = await check_token(bearer_token(request))
        except Unavailable:
            if request.match_info.handler is not get_stream:  # which waits, and checks it then
                raise
    return await handler(request)


def is_public(path: str) -> bool:
    """Tell whether a path, or a route's, is open to everyone: no other route begins as the page's files do."""
    return path in PUBLIC or path.startswith(FILES)


def refuse_strangers(request: web.Request) -> None:
    """Without tokens everyone is `anonymous`, and only this host's own programs are anyone.

    A foreign Host is a web page that had its name point here (DNS rebinding); a Forwarded header, a proxy in front.
    """
    if request.app[CONFIG].allow_anonymous:
        return
    if not names_this_host(request):
        raise Forbidden("Without tokens chatd answers only requests for localhost (see CHATD_ALLOW_ANONYMOUS).")
    if came_by_proxy(request):
        raise Forbidden("Without tokens chatd does not answer through a proxy (see CHATD_ALLOW_ANONYMOUS).")


def names_this_host(request: web.Request) -> bool:
    match = HOST.fullmatch(request.headers.get("Host", ""))
    return match is not None and is_loopback(match[1])


def came_by_proxy(request: web.Request) -> bool:
    return any(name in request.headers for name in OF_PROXIES)


def is_scraped_here(request: web.Request) -> bool:
    """Tell whether one of this host's own programs asks for the metrics: no web page, nobody behind a proxy that tells.

    A proxy on this host without a header of its own and with a Host of this host can't be told from such a program.
    """
    if request.match_info.handler is not get_metrics or not names_this_host(request) or came_by_proxy(request):
        return False
    peer = request.get_extra_info("socket")
    return peer is not None and (peer.family == socket.AF_UNIX or is_loopback(request.remote or ""))


def has_ticket(request: web.Request) -> bool:
    """Tell whether this is an EventSource, which can't send a token: a stream asked for with a ticket instead."""
    of_stream = request.match_info.handler is get_stream
    return of_stream and "Authorization" not in request.headers and "ticket" in request.query
