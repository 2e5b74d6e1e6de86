"""A TCP proxy that can be told to fail: every way in which a network fails two programs that trust it."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

CHUNK = 1 << 16  # bytes read at once
QUEUE = 16  # chunks on their way in one direction
TICKS = 20  # writes a second when the bandwidth is limited
CONNECT_TIMEOUT = 5.0
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: close with a RST
GONE = (OSError, EOFError)

Target = tuple[str, int] | Path
Chunk = tuple[float, bytes]  # when it is due, and what; empty bytes are the end


@dataclass(eq=False)
class Link:
    """A client's connection and the one to the server that stands for it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    received: int = field(default=0)  # bytes from the server

    def close(self) -> None:
        for writer in (self.client, self.server):
            writer.close()

    def reset(self) -> None:
        for writer in (self.client, self.server):
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            writer.transport.abort()


class Proxy:
    """Forwards from a port of its own to a target; change its attributes at any time to make it fail."""

    def __init__(self, target: Target, *, receive_buffer: int | None = None) -> None:
        self.target, self.receive_buffer = target, receive_buffer
        self.latency = 0.0  # seconds that every byte is late, in both directions
        self.bandwidth: int | None = None  # bytes a second and direction
        self.slice: int | None = None  # bytes a write
        self.limit: int | None = None  # bytes from the server after which a connection ends
        self.limit_resets = False  # whether it ends by a RST
        self.port = 0
        self.accepted = 0
        self.links: set[Link] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None
        self.flowing = asyncio.Event()
        self.flowing.set()

    @property
    def frozen(self) -> bool:
        """Whether it is a black hole: connections are accepted and stay open, nothing passes."""
        return not self.flowing.is_set()

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        (self.flowing.clear if frozen else self.flowing.set)()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def refusing(self) -> bool:
        """Whether nothing listens on its port; see `refuse` and `listen`."""
        return self.server is None

    async def listen(self) -> None:
        """Accept connections (again), on the same port as before."""
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuse new connections; those that are there go on."""
        if self.server is not None:
            self.server.close()
        self.server = None

    async def stop(self) -> None:
        self.refuse()
        self.reset_all()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def reset_all(self) -> None:
        """Break every connection off on both sides (RST)."""
        for link in list(self.links):
            link.reset()

    def close_all(self) -> None:
        """End every connection on both sides (FIN)."""
        for link in list(self.links):
            link.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.accepted += 1
        try:
            await self.flowing.wait()
            await self._connect(reader, writer)
        except (*GONE, asyncio.CancelledError):
            pass  # one of the two is gone, or the proxy stops
        finally:
            self.tasks.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            answers, server = await self._open()
        link = Link(writer, server)
        self.links.add(link)
        try:
            await end_together(self._forward(reader, server, None), self._forward(answers, writer, link))
        finally:
            self.links.discard(link)
            server.transport.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = str(self.target) if isinstance(self.target, Path) else self.target
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        sock.setblocking(False)
        if self.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock, limit=CHUNK)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link | None) -> None:
        """Forward one direction to its end; `link` is given where it is the server's."""
        queue: asyncio.Queue[Chunk] = asyncio.Queue(QUEUE)
        await end_together(self._read(reader, queue), self._write(queue, writer, link))

    async def _read(self, reader: asyncio.StreamReader, queue: asyncio.Queue[Chunk]) -> None:
        data = b"more"
        while data:
            await self.flowing.wait()
            data = await reader.read(max(1, self.bandwidth // TICKS) if self.bandwidth else CHUNK)
            await queue.put((asyncio.get_running_loop().time() + self.latency, data))

    async def _write(self, queue: asyncio.Queue[Chunk], writer: asyncio.StreamWriter, link: Link | None) -> None:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if not data:
                break
            async for piece in self._pieces(data):
                if link is not None and self._ends(link, len(piece)):
                    return
                writer.write(piece)
                await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        size = self.slice or len(data)
        for at in range(0, len(data), size):
            await self.flowing.wait()
            piece = data[at : at + size]
            yield piece
            await asyncio.sleep(len(piece) / self.bandwidth if self.bandwidth else 0)

    def _ends(self, link: Link, size: int) -> bool:
        """Count what came from the server, and end the connection that reached the limit."""
        link.received += size
        if self.limit is None or link.received <= self.limit:
            return False
        (link.reset if self.limit_resets else link.close)()
        return True


async def end_together(*works: Awaitable[None]) -> None:
    """Wait for all, and end the others where one fails."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def proxied(target: Target, *, receive_buffer: int | None = None) -> AsyncIterator[Proxy]:
    """Yield a proxy in front of a target."""
    proxy = Proxy(target, receive_buffer=receive_buffer)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.stop()
