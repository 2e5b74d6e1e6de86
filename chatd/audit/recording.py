"""What of a request is recorded in the audit: who, from where, what, with which id; nothing of what it holds."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from aiohttp import hdrs, web

from chatd.audit.chain import Entry, now
from chatd.errors import ChatdError, Handler, Unavailable
from chatd.keys import AUDIT, CALLER, CONFIG, METRICS, REQUEST_ID
from chatd.middlewares import ANONYMOUS
from chatd.models import Turn
from chatd.parsing import is_loopback, plain_address
from chatd.schemas import SESSION_ID

logger = logging.getLogger(__name__)

REFUSALS = {401: "sign_in", 403: "forbidden", 429: "limit"}


@web.middleware
async def record_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Record who was not let in, or not let do something, and count the limits that were reached."""
    try:
        return await handler(request)
    except ChatdError as refusal:
        if refusal.limit:
            request.app[METRICS].http.limits.labels(refusal.limit).inc()
        if action := REFUSALS.get(refusal.status):
            request.app[AUDIT].record_refusal(describe(request, action, target(request), refusal.code))
        raise


@asynccontextmanager
async def recorded(request: web.Request, action: str, target: str) -> AsyncIterator[None]:
    """Record what the block does, before it is answered.

    It is done by then: where the database is away now, the entry is written later. What may have been done, though it
    failed or the client is gone, is recorded, too.
    """
    audit = request.app[AUDIT]
    try:
        yield
    except (Unavailable, asyncio.CancelledError) as error:
        outcome = error.code if isinstance(error, Unavailable) else "cancelled"
        audit.record(describe(request, action, target, outcome))
        raise
    if not await audit.record_now(describe(request, action, target)):
        logger.warning("%s of %s is done, and not yet in the audit", action, target)


async def record_read(request: web.Request, owner: str, session_id: str) -> None:
    """Record that an admin reads a session of others, before they do; raises Unavailable where that can't be done."""
    if owner == request[CALLER].owner:
        return
    if not await request.app[AUDIT].record_now(describe(request, "session.read", session_id)):
        raise Unavailable


def record_creation(request: web.Request) -> Callable[[Turn], None]:
    """Return what records that a session was made for its first turn, though the request may be over by then."""
    audit, entry = request.app[AUDIT], describe(request, "session.create", "")
    return lambda turn: audit.record(replace(entry, at=now(), object=turn.session_id))


def describe(request: web.Request, action: str, target: str, outcome: str = "ok") -> Entry:
    caller = request.get(CALLER)
    return Entry(
        at=now(),
        action=action,
        owner=caller.owner if caller and caller.owner != ANONYMOUS else None,
        object=target,
        request_id=request[REQUEST_ID],
        address=find_address(request),
        outcome=outcome,
    )


def target(request: web.Request) -> str:
    """Return the session that a request is for, else its method and route: nothing that the client has made up."""
    session_id = request.match_info.get("session_id", "")
    if SESSION_ID.fullmatch(session_id):
        return session_id
    resource = request.match_info.route.resource
    method = request.method if request.method in hdrs.METH_ALL else "-"
    return f"{method} {resource.canonical if resource else '-'}"


def find_address(request: web.Request) -> str | None:
    """Return where a request comes from: the peer, or of a proxy on this host, what it says last."""
    peer = read_address(request.remote or "") or request.remote or None
    if request.app[CONFIG].auth == "none" or not (peer is None or is_loopback(peer)):
        return peer
    given = ",".join(request.headers.getall("X-Forwarded-For", [])).rpartition(",")[2].strip()
    return read_address(given) or peer


def read_address(text: str) -> str | None:
    try:
        return None if "%" in text else str(plain_address(text))
    except ValueError:
        return None
