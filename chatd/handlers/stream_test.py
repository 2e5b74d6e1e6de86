"""A stream for `chatd doctor`: what is between a client and chatd shows in how it arrives."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from chatd.background import wait_for
from chatd.handlers.stream import open_stream
from chatd.keys import CALLER, CONFIG, TURNS
from chatd.quotas import hold_stream
from chatd.sse import Stream, encode

NUMBERS = 10
PAUSE = 0.1  # seconds between two of them
HEARTBEATS = 3.5  # for so many nothing is sent but them
MAX_SILENCE = 120.0  # seconds


async def get_stream_test(request: web.Request) -> web.StreamResponse:
    """Stream what chatd sees of the request, ten numbers, heartbeats alone for a while, and an end."""
    silence = round(min(HEARTBEATS * request.app[CONFIG].heartbeat, MAX_SILENCE), 3)
    with hold_stream(request):
        async with open_stream(request) as stream:
            stream.end_at(request[CALLER].expires)
            with suppress(TimeoutError):
                async with asyncio.timeout(NUMBERS * PAUSE + silence + request.app[CONFIG].write_timeout):
                    await send_test(stream, request, silence)
    return stream.response


async def send_test(stream: Stream, request: web.Request, silence: float) -> None:
    version = f"{request.version.major}.{request.version.minor}"
    heartbeat = request.app[CONFIG].heartbeat
    await stream.write(event(type="request", http_version=version, heartbeat=heartbeat, silence=silence))
    for number in range(1, NUMBERS + 1):
        await asyncio.sleep(PAUSE)
        if is_over(stream):
            break
        await stream.write(event(type="number", number=number, at=datetime.now(UTC).isoformat()))
    await be_silent(stream, silence)
    if stream.expired:
        return
    if is_over(stream):
        await stream.ask_back()
    else:
        await stream.write(event(type="end"))


async def be_silent(stream: Stream, seconds: float) -> None:
    """Write heartbeats when they are due, and nothing else, for so long or until the test is over before its time."""
    due = asyncio.Event()
    stream.on_silence = due.set
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not is_over(stream):
                await wait_for(due, PAUSE)
                if due.is_set() and not is_over(stream):
                    await stream.write(b"")
                due.clear()


def is_over(stream: Stream) -> bool:
    """Tell whether the caller's token has expired or the server drains."""
    return stream.expired or stream.request.app[TURNS].draining


def event(**data: Any) -> bytes:
    return f"data: {encode(data)}\n\n".encode()
