"""What comes between the page and chatd: Playwright's routes, by what they do to a request."""

import asyncio
import json
from typing import Any

from playwright.async_api import Route

POST = "**/agent/chat/stream"
ATTACH = "**/agent/chat/stream/sess-*"
STOP = "**/agent/chat/stop/**"
HISTORY = "**/agent/chat/history/**"


async def refuse(route: Route) -> None:
    """Lose a request."""
    await route.abort()


def problem(status: int, **fields: Any) -> dict[str, Any]:
    """Return an answer of chatd's own kind."""
    return {"status": status, "content_type": "application/problem+json", "body": json.dumps(fields)}


class Hold:
    """Holds requests up until they may go on."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, route: Route) -> None:
        await self.go_on.wait()
        await route.continue_()


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
