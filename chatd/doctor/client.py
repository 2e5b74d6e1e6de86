"""A client of a deployed chatd: what is said, and when it arrives."""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from chatd.doctor.findings import Unexpected
from chatd.sse import MAX_EVENT, data_of, decode

TIMEOUT = 20.0  # seconds for a response that is no stream
LOOK = "see what the proxy and chatd have logged"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    headers: Any
    body: Any  # of JSON, else None


@dataclass(frozen=True, slots=True)
class Frame:
    """A part of a stream, and when it came (time.monotonic): an event, or None.

    None: a comment or, `goodbye`, how soon a client is to come back to the process that follows this one.
    """

    at: float
    id: str
    event: Any
    goodbye: bool = False


class Client:
    """Sends requests to a deployed chatd, with the token where there is one, and follows no redirect."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str | None) -> None:
        self.session, self.url = session, url.rstrip("/")
        self.token = {"Authorization": f"Bearer {token}"} if token else {}

    async def call(self, method: str, path: str, *, anonymous: bool = False, **options: Any) -> HttpResponse:
        headers = {**({} if anonymous else self.token), **options.pop("headers", {})}
        timeout = aiohttp.ClientTimeout(TIMEOUT)
        where = f"{self.url}{path}"
        async with self.session.request(
            method, where, headers=headers, timeout=timeout, allow_redirects=False, **options
        ) as response:
            text = await response.text(errors="replace")
            return HttpResponse(response.status, response.headers, read_json(text))

    async def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Return the body of a response with this status; raises Unexpected for another one."""
        response = await self.call(method, path, **options)
        if response.status != status:
            raise unexpected(method, path, response)
        return response.body

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a stream, whose status is 200 or 204; raises Unexpected for another one."""
        headers = {**self.token, **options.pop("headers", {})}
        timeout = aiohttp.ClientTimeout(None, sock_connect=TIMEOUT)
        where = f"{self.url}{path}"
        async with self.session.request(
            method, where, headers=headers, timeout=timeout, allow_redirects=False, **options
        ) as response:
            if response.status not in {200, 204}:
                text = await response.text(errors="replace")
                raise unexpected(method, path, HttpResponse(response.status, response.headers, read_json(text)))
            yield response


def unexpected(method: str, path: str, response: HttpResponse) -> Unexpected:
    detail = response.body.get("detail") if isinstance(response.body, dict) else None
    return Unexpected(f"{method} {path} is answered with {response.status}: {detail or 'not by chatd'}", LOOK)


def read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


async def frames(response: aiohttp.ClientResponse) -> AsyncGenerator[Frame, None]:
    """Yield the frames of a stream as they come, to its end; raises ValueError for what is none."""
    rest = b""
    async for chunk in response.content.iter_any():
        *blocks, rest = (rest + chunk).split(b"\n\n")
        if len(rest) > MAX_EVENT:
            raise ValueError("an event is too large")
        for block in blocks:
            data = data_of(block).strip()
            goodbye = not data and block.startswith(b"retry:")
            yield Frame(time.monotonic(), id_of(block), decode(data) if data else None, goodbye)


def id_of(block: bytes) -> str:
    return next((line[4:].decode() for line in block.split(b"\n") if line.startswith(b"id: ")), "")
