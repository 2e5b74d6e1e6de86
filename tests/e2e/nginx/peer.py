"""A server behind the site file that writes down what it gets, and those who visit it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from tests.e2e.nginx.site import Site

STRANGER = "127.0.0.2"  # this host under an address that is not known


class Peer:
    """The server behind: answers with what it gets; at `/dies` and `/floods` it does that."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.connections: set[object] = set()
        self.flooding = 0
        self.release = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.connections.add(request.protocol)
        body = await request.read()
        assert request.transport is not None
        if request.path.endswith("/dies"):
            request.transport.abort()
        elif request.path.endswith("/floods"):
            return await self.flood(request)
        elif request.path.endswith("/waits"):
            await self.release.wait()
        return web.json_response({"size": len(body)})

    async def flood(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        self.flooding += 1
        try:
            while True:
                await response.write(b"x" * 65_536)
        finally:
            self.flooding -= 1


@asynccontextmanager
async def visiting(site: Site, address: str = "127.0.0.1", limit: int = 0) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a session whose requests come from an address, over so many connections at most."""
    connector = aiohttp.TCPConnector(local_addr=(address, 0), limit=limit, ssl=False)
    async with aiohttp.ClientSession(site.url, connector=connector) as session:
        yield session


async def refused(response: aiohttp.ClientResponse, status: int, code: str) -> None:
    """Check that a response is a problem document as chatd would give it."""
    assert response.status == status
    assert response.content_type == "application/problem+json"
    problem = json.loads(await response.read())
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem.keys() == {"type", "title", "status", "detail", "code"}
    assert ("Retry-After" in response.headers) == (status in {429, 502, 503, 504})
    assert response.headers["Cache-Control"] == "no-store"
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])
