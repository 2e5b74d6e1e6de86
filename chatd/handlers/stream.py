"""(Re)attach to a session's stream; any number of readers, whoever runs the turn."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing

from aiohttp import web

from chatd.errors import NotFound, RateLimited, Unauthorized, Unavailable
from chatd.keys import CALLER, CHECK_TOKEN, CONFIG, METRICS, MIRRORS, REPO, TURNS
from chatd.models import Caller
from chatd.quotas import hold_stream
from chatd.readers import RETRY, Place, locate
from chatd.requests import bearer_token, session_id_in
from chatd.sse import NO_HEADERS, Stream
from chatd.tickets import in_use, use_ticket


async def get_stream(request: web.Request) -> web.StreamResponse:
    """Answer 200, 204, 401, 404, 429; on a 503 an EventSource would give up for good, so it gets heartbeats."""
    ticket = None if CALLER in request or "Authorization" in request.headers else request.query["ticket"]
    with ExitStack() as counted:
        if CALLER in request:
            counted.enter_context(hold_stream(request))
        async with in_use(request.app[REPO], ticket, session_id_in(request)):
            try:
                place = await find_place(request, counted)
            except Unavailable:
                return await send_when_back(request, counted)
            return web.Response(status=204) if place is None else await send(request, place)


async def find_place(request: web.Request, counted: ExitStack) -> Place | None:
    """Return where the client goes on, once its right to read is checked and its stream is counted."""
    cursor = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or None
    session_id = session_id_in(request)
    if CALLER not in request:
        request[CALLER] = await check_right(request, session_id)
        counted.enter_context(hold_stream(request))
    return await locate(request.app[REPO], request.app[MIRRORS], request[CALLER].owner, session_id, cursor)


async def check_right(request: web.Request, session_id: str) -> Caller:
    """Return who a ticket speaks for, or a token that there were no keys for a moment ago; raises Unauthorized."""
    if "Authorization" in request.headers:
        return await request.app[CHECK_TOKEN](bearer_token(request))
    return await use_ticket(request.app[REPO], request.query["ticket"], session_id)


@asynccontextmanager
async def open_stream(request: web.Request, headers: Mapping[str, str] = NO_HEADERS) -> AsyncIterator[Stream]:
    config = request.app[CONFIG]
    with request.app[METRICS].http.streams.track_inprogress():
        async with Stream(request, config.heartbeat, config.write_timeout, headers) as stream:
            yield stream


async def send(request: web.Request, place: Place, headers: Mapping[str, str] = NO_HEADERS) -> web.StreamResponse:
    """Stream a place's frames to their end."""
    with closing(place.source):
        async with open_stream(request, headers) as stream:
            await pump(stream, place, request[CALLER])
    return stream.response


async def pump(stream: Stream, place: Place, caller: Caller) -> None:
    """Write a place's frames to their end, or until the caller's token expires."""
    source, wait = place.source, stream.request.app[METRICS].journal.write_wait
    stream.end_at(caller.expires)
    if stream.expired:
        return
    stream.on_silence = source.wake
    if place.first:
        await stream.write(place.first)
    while not stream.expired and (frames := await source.read(stream.write_now)) is not None:
        if not stream.expired:
            with wait.time():
                await stream.write(frames)
    if source.lost and not stream.expired:
        await stream.ask_back()


async def send_when_back(request: web.Request, counted: ExitStack) -> web.StreamResponse:
    """Send heartbeats, and nothing of the session, until the right to read it can be checked."""
    async with open_stream(request) as stream:
        try:
            place = await wait_for_place(request, stream, counted)
        except (NotFound, RateLimited, Unauthorized):
            return stream.response
        if place is None:
            return stream.response
        with closing(place.source):
            await pump(stream, place, request[CALLER])
    return stream.response


async def wait_for_place(request: web.Request, stream: Stream, counted: ExitStack) -> Place | None:
    """Return the place once the database, and a key for the token, are there; None for nothing, or no time left.

    Raises NotFound, RateLimited, Unauthorized.
    """
    silent = asyncio.Event()
    stream.on_silence = silent.set
    await stream.write(b"")
    while not (request.app[TURNS].draining or stream.expired):
        try:
            return await find_place(request, counted)
        except Unavailable:
            end_with_token(request, stream)
            await asyncio.sleep(RETRY)
        if silent.is_set():
            silent.clear()
            await stream.write(b"")
    if not stream.expired:
        await stream.ask_back()
    return None


def end_with_token(request: web.Request, stream: Stream) -> None:
    """Have a stream end when the token does, once that is known."""
    expires = request[CALLER].expires if CALLER in request else math.inf
    if expires < stream.ends_at == math.inf:
        stream.end_at(expires)
