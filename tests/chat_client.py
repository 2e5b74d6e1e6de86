"""The tests' client: a method an endpoint, which asserts the status and tells the body where it is another one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from chatd.keys import TURNS
from chatd.turns import Turns
from tests.sse_client import Event, read_all

CHARACTER = 7


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


class Chat:
    """A client of chatd in this process, or (a ClientSession) of one in another."""

    def __init__(self, client: Any) -> None:
        self.client = client

    @property
    def turns(self) -> Turns:
        """The turns of a chatd in this process."""
        turns: Turns = self.client.server.app[TURNS]
        return turns

    async def call(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Return the JSON body, or None where there is none."""
        async with self.client.request(method, path, **options) as response:
            text = await response.text()
            assert response.status == status, f"{response.status}: {text}"
            assert response.headers["X-Request-ID"]
            if status >= 400:
                assert response.content_type == "application/problem+json"
            return await response.json(content_type=None) if text else None

    def body(self, message: str, session_id: str | None = None, **changes: Any) -> dict[str, Any]:
        return {"message": message, "session_id": session_id, "character_id": CHARACTER, **changes}

    async def post(self, message: str, session_id: str | None = None, status: int = 200, **options: Any) -> Any:
        return await self.call("POST", "/agent/chat", status, json=self.body(message, session_id), **options)

    @asynccontextmanager
    async def streaming(self, message: str, session_id: str | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        path = "/agent/chat/stream"
        async with self.client.post(path, json=self.body(message, session_id)) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            yield response

    async def stream(self, message: str, session_id: str | None = None) -> list[Event]:
        async with self.streaming(message, session_id) as response:
            return await read_all(response)

    @asynccontextmanager
    async def attaching(
        self, session_id: str, cursor: str | None = None, status: int = 200
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Last-Event-ID": cursor} if cursor is not None else {}
        async with self.client.get(f"/agent/chat/stream/{session_id}", headers=headers) as response:
            assert response.status == status, await response.text()
            yield response

    async def attach(self, session_id: str, cursor: str | None = None, status: int = 200) -> list[Event]:
        async with self.attaching(session_id, cursor, status) as response:
            return await read_all(response)

    async def session(self, status: int = 201, **fields: Any) -> Any:
        return await self.call("POST", "/agent/session", status, json={"character_id": CHARACTER, **fields})

    async def history(self, session_id: str, status: int = 200, **query: Any) -> Any:
        return await self.call("GET", f"/agent/chat/history/{session_id}", status, params=query)


async def raw(chat: Chat, data: bytes) -> bytes:
    """Send bytes that need not be HTTP, and return what comes first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", chat.client.port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(4000), 5)
    writer.close()
    return answer
