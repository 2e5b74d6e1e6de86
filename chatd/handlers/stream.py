"""(Re)attach to a session's stream; any number of readers, whoever runs the turn."""

import asyncio
from collections.abc import Mapping
from contextlib import closing

from aiohttp import web

from chatd.errors import NotFound, Unavailable
from chatd.keys import CONFIG, MIRRORS, OWNER, REPO, TURNS
from chatd.readers import RETRY, Place, locate
from chatd.schemas import session_id_in
from chatd.sse import NO_HEADERS, Stream


async def get_stream(request: web.Request) -> web.StreamResponse:
    """Answer 200, 204 or 404; an EventSource would give up for good on a 503, so it gets heartbeats meanwhile."""
    try:
        place = await find_place(request)
    except Unavailable:
        return await send_when_back(request)
    return web.Response(status=204) if place is None else await send(request, place)


async def find_place(request: web.Request) -> Place | None:
    cursor = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or None
    session_id = session_id_in(request)
    return await locate(request.app[REPO], request.app[MIRRORS], request[OWNER], session_id, cursor)


def open_stream(request: web.Request, headers: Mapping[str, str] = NO_HEADERS) -> Stream:
    config = request.app[CONFIG]
    return Stream(request, config.heartbeat, config.write_timeout, headers)


async def send(request: web.Request, place: Place, headers: Mapping[str, str] = NO_HEADERS) -> web.StreamResponse:
    """Stream a place's frames to their end."""
    with closing(place.source):
        async with open_stream(request, headers) as stream:
            await pump(stream, place)
    return stream.response


async def pump(stream: Stream, place: Place) -> None:
    source = place.source
    stream.on_silence = source.wake
    if place.first:
        await stream.write(place.first)
    while (frames := await source.read(stream.write_now)) is not None:
        await stream.write(frames)
    if source.lost:
        await stream.ask_back()


async def send_when_back(request: web.Request) -> web.StreamResponse:
    """Send heartbeats, and nothing of the session, until the right to read it can be checked."""
    async with open_stream(request) as stream:
        try:
            place = await wait_for_place(request, stream)
        except NotFound:
            return stream.response
        if place is None:
            return stream.response
        with closing(place.source):
            await pump(stream, place)
    return stream.response


async def wait_for_place(request: web.Request, stream: Stream) -> Place | None:
    """Return the place once the database is back; None where there is nothing, or no time left; raises NotFound."""
    silent = asyncio.Event()
    stream.on_silence = silent.set
    await stream.write(b"")
    while not request.app[TURNS].draining:
        try:
            return await find_place(request)
        except Unavailable:
            await asyncio.sleep(RETRY)
        if silent.is_set():
            silent.clear()
            await stream.write(b"")
    await stream.ask_back()
    return None
