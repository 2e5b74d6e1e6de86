"""A model server over a real socket: the Anthropic Messages protocol, and every way of failing at it."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

USAGE = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 3,
    "output_tokens": 1,
}


@dataclass
class Request:
    """A request as it came in, and when."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float = field(default_factory=time.monotonic)

    @property
    def messages(self) -> list[tuple[str, str]]:
        return [(m["role"], "".join(block["text"] for block in m["content"])) for m in self.body["messages"]]


class Exchange:
    """One answer being given."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.request, self.writer = request, writer

    async def head(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        lines = [
            f"HTTP/1.1 {status} Whatever",
            "Content-Type: text/event-stream",
            "Transfer-Encoding: chunked",
            "Connection: close",
            "request-id: req_test",
        ]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await self.writer.drain()

    async def fail(self, status: int, kind: str = "api_error", message: str = "no", **headers: str) -> None:
        """Answer with an error status."""
        body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
        lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += ["Connection: close", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        await self.writer.drain()

    async def raw(self, data: bytes) -> None:
        """Send bytes as a chunk of the body."""
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.writer.drain()

    async def event(self, kind: str, **data: Any) -> None:
        await self.raw(f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode())

    async def start(self, **usage: Any) -> None:
        """Send everything that comes before the first piece."""
        await self.head()
        message = {"id": "msg_1", "model": "test-model", "role": "assistant", "content": [], "usage": USAGE | usage}
        await self.event("message_start", message=message)
        await self.event("content_block_start", index=0, content_block={"type": "text", "text": ""})

    async def text(self, *pieces: str, delay: float = 0) -> None:
        for piece in pieces:
            await self.event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
            if delay:
                await asyncio.sleep(delay)

    async def stop(self, reason: str = "end_turn", output_tokens: int = 7) -> None:
        """Send everything that comes after the last piece."""
        await self.event("content_block_stop", index=0)
        await self.event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": output_tokens})
        await self.event("message_stop")
        await self.end()

    async def end(self) -> None:
        """End the body cleanly."""
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def reset(self) -> None:
        """Break the connection off (RST)."""
        self.writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


def says(*pieces: str, delay: float = 0) -> Script:
    """Return the script of a whole answer."""

    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text(*pieces, delay=delay)
        await exchange.stop()

    return script


def fails(status: int, kind: str = "api_error", message: str = "no", **headers: str) -> Script:
    return lambda exchange: exchange.fail(status, kind, message, **headers)


class ModelServer:
    """Plays the scripts in order, then `default` for ever."""

    url: str

    def __init__(self) -> None:
        self.scripts: deque[Script] = deque()
        self.default: Script = says("Hello", ", ", "world", ".")
        self.requests: list[Request] = []
        self.gone: list[Request] = []  # those whose client hung up
        self.tasks: set[asyncio.Task[None]] = set()

    def play(self, scripts: Iterable[Script]) -> None:
        self.scripts.extend(scripts)

    async def start(self, port: int = 0) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=1024)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self.server.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the server stops
        finally:
            self.tasks.discard(task)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        request = Request(body, headers)
        self.requests.append(request)
        script = self.scripts.popleft() if self.scripts else self.default
        try:
            await script(Exchange(request, writer))
        except ConnectionError:
            self.gone.append(request)
