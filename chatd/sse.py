"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): encode ours, decode the model's.

Pure functions, but for Stream, which is the only thing that writes to a client's stream.
"""

import asyncio
import json
import math
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from aiohttp import web

from chatd.crash import crash_point

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx: pass each frame on at once
}
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
RETRY = b"retry: 1000\n"  # ms that an EventSource waits before it comes back
PING = b": ping\n\n"
COME_BACK = (250, 1750)  # ms, at random: not all at once
MAX_WRITE = 1 << 18  # bytes
MAX_PUSH = 1 << 15  # bytes that an empty transport takes without asking to wait: its high-water mark is twice that
SEND_BUFFER = 65_536  # bytes of kernel memory for a client that does not read
MAX_EVENT = 16 << 20  # bytes; a delta of 1 MiB, every character of it escaped, is 6
COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # json.dumps would make one for each event
SCANNER = json.JSONDecoder()
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # no PostgreSQL text and no UTF-8 can hold these


def clean(text: str) -> str:
    """Replace U+0000 and lone surrogates by U+FFFD."""
    return UNSTORABLE.sub("\ufffd", text)


def clean_json(value: Any) -> Any:
    """Clean every string of a JSON value, keys included; a number that JSON has no word for becomes null."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [clean_json(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean_json(item) for key, item in value.items()}
    return value


def encode(event: dict[str, Any]) -> str:
    """Return an event as compact JSON on one line, whatever a reader takes for a line's end."""
    if len(event) == 2 and event["type"] == "text":  # nearly all are: a third of the time
        text = f'{{"type":"text","text":{COMPACT.encode(event["text"])}}}'
    else:
        text = COMPACT.encode(event)
    if text.isascii():
        return text
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")


def decode(data: str) -> Any:
    """Return the value of a JSON text with no white space around it; raises ValueError."""
    value, end = SCANNER.raw_decode(data)
    if end != len(data):
        raise ValueError("more than one JSON value")
    return value


def frame(turn_id: str, seq: int, data: str) -> bytes:
    """Return the bytes of an event of a turn; `data` is its JSON."""
    return f"id: {turn_id}.{seq}\ndata: {data}\n\n".encode()


class Decoder:
    """Decode a stream's bytes, however they are cut, into the JSON objects of its events."""

    def __init__(self) -> None:
        self.rest = b""
        self.after_cr = False

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """Yield the events that are complete now; raises ValueError for bad JSON and for one over MAX_EVENT."""
        *blocks, self.rest = (self.rest + self._normalize(chunk)).split(b"\n\n")
        for block in blocks:
            if data := data_of(block).strip():
                yield decode(data)
        if len(self.rest) > MAX_EVENT:
            raise ValueError("an event is too large")

    def _normalize(self, chunk: bytes) -> bytes:
        if b"\r" not in chunk and not self.after_cr:
            return chunk
        if self.after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self.after_cr = chunk.endswith(b"\r") or (self.after_cr and not chunk)
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def data_of(block: bytes) -> str:
    """Return an event's data, "" where it has none."""
    at = block.find(b"\ndata:")
    if at > 0 and block.find(b"\n", at + 1) < 0 and not block.startswith(b"data:"):
        return block[at + 6 :].decode("utf-8", "surrogatepass")  # the usual one
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines).decode("utf-8", "surrogatepass")


class Stream:
    """A client's stream: whole frames, a ping after silence, and an end for a client that does not read.

    One timer for the life of the stream: it calls `on_silence` when a ping is due, or when the right to read expires,
    which makes the one that writes wake up and see to it; and it aborts the connection when a write has been stuck for
    `write_timeout` seconds, or at that expiry.
    """

    def __init__(
        self, request: web.Request, heartbeat: float, write_timeout: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        self.request, self.heartbeat, self.write_timeout = request, heartbeat, write_timeout
        self.response = web.StreamResponse(headers={**HEADERS, **headers})
        self.loop = asyncio.get_running_loop()
        self.on_silence: Callable[[], None] = lambda: None
        self.last_write = self.loop.time()
        self.ends_at = math.inf  # by the loop's clock
        self.writing = False
        self.prefix = RETRY

    async def __aenter__(self) -> "Stream":
        limit_buffer(self.request)
        await self.response.prepare(self.request)
        self._set_timer(self.heartbeat)
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> bool:
        self.timer.cancel()
        return error is not None and issubclass(error, ConnectionError)  # a client that is gone is no failure

    def end_at(self, when: float) -> None:
        """Expire at a time, in seconds since the epoch: `on_silence` is called then, too."""
        self.ends_at = self.loop.time() + when - time.time()
        self.timer.cancel()
        self._set_timer(self.heartbeat)

    @property
    def expired(self) -> bool:
        return self.loop.time() >= self.ends_at

    async def write(self, frames: bytes) -> None:
        """Write whole frames (none: a ping); raises ConnectionError when the client is gone."""
        data, self.prefix = self.prefix + (frames or PING), b""
        for at in range(0, len(data), MAX_WRITE):  # a slow client gets the time for each
            self.last_write, self.writing = self.loop.time(), True
            await self.response.write(data[at : at + MAX_WRITE])
        self.last_write, self.writing = self.loop.time(), False
        crash_point("after_write")

    def write_now(self, frames: bytes) -> bool:
        """Write whole frames and return True, or False where that might take waiting.

        What is certain not to wait needs no task to be run in, and so none to be woken.
        """
        transport = self.request.transport
        if self.prefix or self.writing or self.expired or len(frames) > MAX_PUSH:
            return False
        if transport is None or transport.get_write_buffer_size():
            return False
        writing = self.response.write(frames)
        try:
            writing.send(None)
        except StopIteration:
            pass
        except Exception:  # noqa: BLE001 - whatever it is, it is this client's alone: its task will meet it, too
            return False
        finally:
            writing.close()
        self.last_write = self.loop.time()
        crash_point("after_write")
        return True

    async def ask_back(self) -> None:
        """Ask the client to come back soon, to whichever process there is then."""
        soonest, latest = COME_BACK
        await self.write(b"retry: %d\n\n" % (soonest + secrets.randbelow(latest - soonest)))

    def _watch(self) -> None:
        limit = self.write_timeout if self.writing else self.heartbeat
        wait = self.last_write + limit - self.loop.time()
        if self.writing and (wait <= 0 or self.expired):
            self._abort()
            return
        if wait <= 0 or self.expired:
            self.on_silence()
            wait = self.heartbeat
        self._set_timer(wait)

    def _set_timer(self, wait: float) -> None:
        left = self.ends_at - self.loop.time()
        self.timer = self.loop.call_later(min(wait, self.write_timeout, left if left > 0 else wait), self._watch)

    def _abort(self) -> None:
        if self.request.transport is not None:
            self.request.transport.abort()


def limit_unread(request: web.Request, timeout: float) -> None:
    """Have the kernel cut a client that takes nothing for so long, or is gone without a word."""
    sock = request.transport and request.transport.get_extra_info("socket")
    if sock and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout * 1000))


def limit_buffer(request: web.Request) -> None:
    """Bound what the kernel holds for this client."""
    if sock := request.transport and request.transport.get_extra_info("socket"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
