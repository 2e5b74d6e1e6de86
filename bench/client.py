"""A client for load: it keeps what comes and when, and takes it apart after the measurement, not during it."""

import asyncio
import json
import random
import re
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, cast
from urllib.parse import urlsplit

SENT = re.compile(rb"(\d{10,}) is when")
LAST_CHUNK = b"\r\n0\r\n\r\n"


def post(path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> bytes:
    """Return a request's bytes."""
    data = json.dumps(body).encode()
    return request("POST", path, {"Content-Type": "application/json", "Content-Length": str(len(data))}, headers) + data


def get(path: str) -> bytes:
    return request("GET", path, {}, None)


def request(method: str, path: str, headers: Mapping[str, str], more: Mapping[str, str] | None) -> bytes:
    lines = [f"{name}: {value}" for name, value in {"Host": "127.0.0.1", **headers, **(more or {})}.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


class Stream(asyncio.Protocol):
    """A request on a connection of its own, and what came back for it."""

    transport: asyncio.Transport

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.chunks: list[bytes] = []
        self.tail = b""
        self.arrivals: list[int] = []  # of the chunks, by the monotonic clock in ns
        self.begun = asyncio.get_running_loop().create_future()
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.arrivals.append(time.monotonic_ns())
        self.chunks.append(data)
        if not self.begun.done():
            self.begun.set_result(None)
        self.tail = (self.tail + data)[-len(LAST_CHUNK) :]
        if self.tail == LAST_CHUNK:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.begun, self.over):
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        self.transport.abort()

    def body(self) -> tuple[bytes, list[int], list[int]]:
        """Return the body without its chunked encoding: its bytes, and the parts' ends and times of arrival.

        Nothing where there was no answer; raises RuntimeError where it is another than 200.
        """
        raw = b"".join(self.chunks)
        if not raw:
            return b"", [], []
        ends = list(accumulate(map(len, self.chunks)))
        at = raw.find(b"\r\n\r\n") + 4
        if not raw.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"no stream: {raw[:500]!r}")
        parts: list[bytes] = []
        arrivals: list[int] = []
        while (line_end := raw.find(b"\r\n", at)) > 0 and (size := int(raw[at:line_end], 16)):
            parts.append(raw[line_end + 2 : line_end + 2 + size])
            at = line_end + 2 + size + 2
            arrivals.append(self.arrivals[bisect_left(ends, min(at - 2, ends[-1]))])
        return b"".join(parts), list(accumulate(map(len, parts))), arrivals

    def delays(self) -> list[float]:
        """Return how long each piece took from the model server's write, in ms."""
        body, ends, arrivals = self.body()
        return [(arrivals[bisect_left(ends, match.end())] - int(match[1])) / 1e6 for match in SENT.finditer(body)]

    def count(self) -> int:
        """Return the number of pieces that came."""
        return len(SENT.findall(self.body()[0]))


async def open_stream(url: str, request: bytes) -> Stream:
    loop, address = asyncio.get_running_loop(), urlsplit(url)
    assert address.hostname and address.port
    _, stream = await loop.create_connection(lambda: Stream(request), address.hostname, address.port)
    return stream


async def open_streams(urls: Sequence[str], requests: Sequence[bytes], over: float) -> list[Stream]:
    """Open streams at the URLs in turn, at random moments of some seconds: evenly, their pieces would come together."""
    chance = random.Random(1)

    async def open_one(n: int, request: bytes) -> Stream:
        await asyncio.sleep(over * chance.random())
        return await open_stream(urls[n % len(urls)], request)

    return await asyncio.gather(*(open_one(n, request) for n, request in enumerate(requests)))
