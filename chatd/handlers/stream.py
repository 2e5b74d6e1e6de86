"""(Re)attach to a session's stream; any number of readers, whoever runs the turn."""

import asyncio

from aiohttp import web

from chatd.errors import NotFound, Unavailable
from chatd.keys import CONFIG, OWNER, REPO, TURNS
from chatd.readers import Place, Source, locate
from chatd.schemas import session_id_in
from chatd.sse import Stream

RETRY = 0.5  # seconds between two tries to reach the database


async def get_stream(request: web.Request) -> web.StreamResponse:
    """Answer 200, 204 or 404; an EventSource would give up for good on a 503, so it gets heartbeats meanwhile."""
    try:
        place = await find_place(request)
    except Unavailable:
        return await send_when_back(request)
    return web.Response(status=204) if place is None else await send(request, place.source, place.first)


async def find_place(request: web.Request) -> Place | None:
    cursor = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or None
    session_id = session_id_in(request)
    return await locate(request.app[REPO], request.app[TURNS], request[OWNER], session_id, cursor)


def open_stream(request: web.Request) -> Stream:
    config = request.app[CONFIG]
    return Stream(request, config.heartbeat, config.write_timeout)


async def send(request: web.Request, source: Source, first: bytes = b"") -> web.StreamResponse:
    """Stream a source's frames to their end."""
    async with open_stream(request) as stream:
        await pump(stream, source, first)
    return stream.response


async def pump(stream: Stream, source: Source, first: bytes) -> None:
    stream.on_silence = source.wake
    if first:
        await stream.write(first)
    while (frames := await source.read()) is not None:
        await stream.write(frames)


async def send_when_back(request: web.Request) -> web.StreamResponse:
    """Send heartbeats, and nothing of the session, until the right to read it can be checked."""
    silent = asyncio.Event()
    async with open_stream(request) as stream:
        stream.on_silence = silent.set
        await stream.write(b"")
        while True:
            try:
                place = await find_place(request)
            except Unavailable:
                await asyncio.sleep(RETRY)
            except NotFound:
                break
            else:
                if place is not None:
                    await pump(stream, place.source, place.first)
                break
            if silent.is_set():
                silent.clear()
                await stream.write(b"")
    return stream.response
