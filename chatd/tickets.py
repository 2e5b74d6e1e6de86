"""Tickets: an EventSource can't send a token, and a token has no place in a URL.

A ticket opens the streams of one session, until a few minutes after its last use (an EventSource comes back to the
same URL), and no longer than the token that it was made with.
"""

import asyncio
import hashlib
import math
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from chatd.background import background
from chatd.errors import Unauthorized, Unavailable
from chatd.models import Caller
from chatd.repo import Repo

LIFE = 300.0  # seconds without use
RENEWAL = 60.0  # seconds between two uses of one whose stream is open
GRACE = 3600.0  # seconds that the database may be away before the tickets of open streams are lost


async def create_ticket(repo: Repo, caller: Caller, session_id: str) -> str:
    """Return a ticket for a session of the caller's; raises NotFound."""
    ticket = secrets.token_urlsafe(32)
    expires = None if caller.expires == math.inf else datetime.fromtimestamp(caller.expires, UTC)
    await repo.create_ticket(digest(ticket), session_id, caller.owner, LIFE, expires)
    return ticket


async def use_ticket(repo: Repo, ticket: str, session_id: str) -> Caller:
    """Return who a ticket speaks for; raises Unauthorized for one that is not this session's, or has expired."""
    row = await repo.use_ticket(digest(ticket), session_id, LIFE)
    if row is None:
        raise Unauthorized("The ticket is not accepted, or has expired.")
    owner, expires = row
    return Caller(owner, expires=expires.timestamp() if expires else math.inf)


@asynccontextmanager
async def in_use(repo: Repo, ticket: str | None, session_id: str) -> AsyncIterator[None]:
    """Have a ticket live on as long as its stream is open."""
    if ticket is None:
        yield
        return
    async with background(renew(repo, ticket, session_id)):
        yield


async def renew(repo: Repo, ticket: str, session_id: str) -> None:
    while True:
        await asyncio.sleep(RENEWAL)
        with suppress(Unavailable):
            await repo.use_ticket(digest(ticket), session_id, LIFE, GRACE)


def digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()
