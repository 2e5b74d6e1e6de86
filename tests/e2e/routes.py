"""What comes between the page and chatd: Playwright's routes, by what they do to a request."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import Route

POST = "**/agent/chat/stream"
ATTACH = "**/agent/chat/stream/sess-*"
STOP = "**/agent/chat/stop/**"
HISTORY = "**/agent/chat/history/**"
SESSION = "**/agent/session/*"
SESSIONS = "**/agent/sessions?*"

Handler = Callable[[Route], Awaitable[None]]


async def refuse(route: Route) -> None:
    """Lose a request."""
    await route.abort()


def problem(status: int, **fields: Any) -> dict[str, Any]:
    """Return an answer of chatd's own kind."""
    return {"status": status, "content_type": "application/problem+json", "body": json.dumps(fields)}


def only(method: str, handler: Handler) -> Handler:
    """Return a handler that lets requests of other methods through."""

    async def handle(route: Route) -> None:
        await (handler(route) if route.request.method == method else route.continue_())

    return handle


class Hold:
    """Holds requests up until they may go on, or get an answer in place of chatd's."""

    def __init__(self, answer: dict[str, Any] | None = None) -> None:
        self.answer = answer
        self.go_on = asyncio.Event()

    async def __call__(self, route: Route) -> None:
        await self.go_on.wait()
        await (route.fulfill(**self.answer) if self.answer else route.continue_())


class Late:
    """Lets requests through, and the first one's answer back when it may go on."""

    def __init__(self) -> None:
        self.has_read = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, route: Route) -> None:
        response = await route.fetch()
        if not self.has_read.is_set():
            self.has_read.set()
            await self.go_on.wait()
        await route.fulfill(response=response)


async def answer_wrongly(route: Route) -> None:
    """Let a request through, and a broken proxy's answer back."""
    await route.fetch()
    await route.fulfill(**problem(500, code="internal", detail="Somewhere between, something broke."))


async def know_nothing(route: Route) -> None:
    """Let a request through, and back the answer of a proxy that knows of no chatd any more."""
    await route.fetch()
    await route.fulfill(status=404, content_type="text/plain", body="404 page not found")


async def captive_portal(route: Route) -> None:
    """Answer as a network does that wants one to sign in."""
    await route.fulfill(status=200, content_type="text/html", body="<p>sign in to this network")
