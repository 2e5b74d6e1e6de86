"""A model server for load: it sends as many pieces, as fast, as the request's last message asks for.

`pieces=N rate=R`: N pieces, R a second, all streams by one timer; rate 0: as fast as they are taken. Each piece tells
when it was written, by the monotonic clock in ns. Prints its address, and serves until its standard input ends.
"""

import asyncio
import heapq
import json
import re
import sys
import time
from typing import Any, cast

import uvloop

PLAN = re.compile(rb"pieces=(\d+) rate=([\d.]+)")
STREAMED = re.compile(rb'"stream": *true')
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
TICK = 0.001  # seconds between two looks at what is due
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
USAGE = {"input_tokens": 11, "output_tokens": 1}
MESSAGE: dict[str, Any] = {
    "id": "msg_bench",
    "type": "message",
    "role": "assistant",
    "model": "bench",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": USAGE,
}


def event(kind: str, **data: Any) -> bytes:
    """Return an event as a chunk of the body."""
    block = f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(block), block)


BEGIN = event("message_start", message=MESSAGE) + event(
    "content_block_start", index=0, content_block={"type": "text", "text": ""}
)
END = (
    event("content_block_stop", index=0)
    + event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 7})
    + event("message_stop")
    + b"0\r\n\r\n"
)


def text() -> str:
    return f"{time.monotonic_ns()} is when "


def piece() -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text()})


def whole(pieces: int) -> bytes:
    """Return a response that is no stream."""
    content = [{"type": "text", "text": "".join(text() for _ in range(pieces))}]
    body = json.dumps(MESSAGE | {"content": content, "stop_reason": "end_turn"}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Exchange(asyncio.Protocol):
    """A connection, on which one answer at a time is given."""

    transport: asyncio.Transport

    def __init__(self, pacer: "Pacer") -> None:
        self.pacer = pacer
        self.buffer = b""
        self.left, self.interval = 0, 0.0
        self.paused = self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        match = LENGTH.search(head)
        length = int(match[1]) if match else 0
        if found and len(body) >= length:
            self.buffer = body[length:]
            self.answer(body[:length])

    def answer(self, body: bytes) -> None:
        plans = PLAN.findall(body)
        count, rate = plans[-1] if plans else (b"4", b"0")
        if not STREAMED.search(body):
            self.transport.write(whole(int(count)))
            return
        self.left, self.interval = int(count), 1 / float(rate) if float(rate) else 0.0
        self.transport.write(HEAD + BEGIN)
        if self.interval:
            self.pacer.add(self)
        else:
            self.pour()

    def pour(self) -> None:
        """Write a piece as often as it is taken, each by itself, as a model's server does."""
        if not self.paused and self.send_one():
            asyncio.get_running_loop().call_soon(self.pour)

    def send_one(self) -> bool:
        """Write a piece, and tell whether there are more."""
        self.left -= 1
        self.transport.write(piece() + (b"" if self.left else END))
        return self.left > 0 and not self.closed

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if not self.interval:
            self.pour()


class Pacer:
    """Writes what is due, for all streams."""

    def __init__(self) -> None:
        self.due: list[tuple[float, int, Exchange]] = []
        self.count = 0

    def add(self, exchange: Exchange) -> None:
        self.push(time.monotonic() + exchange.interval, exchange)

    def push(self, at: float, exchange: Exchange) -> None:
        self.count += 1
        heapq.heappush(self.due, (at, self.count, exchange))

    async def run(self) -> None:
        while True:
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                at, _, exchange = heapq.heappop(self.due)
                if not exchange.closed and exchange.send_one():
                    self.push(at + exchange.interval, exchange)
            await asyncio.sleep(TICK)


async def main() -> None:
    loop, pacer = asyncio.get_running_loop(), Pacer()
    pacing = asyncio.create_task(pacer.run())
    server = await loop.create_server(lambda: Exchange(pacer), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    pacing.cancel()
    server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
