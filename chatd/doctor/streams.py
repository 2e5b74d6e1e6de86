"""What becomes of a stream between chatd and a client: held back, compressed, cut, or asked for in an old way."""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp

from chatd.doctor.client import Client, Frame, frames
from chatd.doctor.findings import Finding, Findings, failed, note, warning

PATIENCE = 15.0  # seconds after which what is due has not come
LATE = 0.5  # seconds that frames may be off the rhythm in which they were sent
LIMIT = 240.0  # seconds; chatd's own limit is about 150


@dataclass
class Heard:
    """What came of the test stream. `over` is when it was (time.monotonic); `cut`: not by its last frame."""

    encoding: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    numbers: list[tuple[float, datetime]] = field(default_factory=list)  # when each came, and was sent
    pings: list[float] = field(default_factory=list)
    last: float = 0.0
    over: float = 0.0
    cut: bool = True
    shut_down: bool = False

    def hear(self, frame: Frame) -> None:
        self.last = frame.at
        self.shut_down |= frame.goodbye
        kind = frame.event["type"] if frame.event else "ping"
        if kind == "ping":
            self.pings.append(frame.at)
        elif kind == "request":
            self.asked = frame.event
        elif kind == "number":
            self.numbers.append((frame.at, datetime.fromisoformat(frame.event["at"])))
        elif kind == "end":
            self.cut = False


async def check_stream(client: Client) -> Findings:
    """Have chatd send numbers, then heartbeats alone, and see what arrives, and when."""
    yield note("stream", "ten numbers, then 3.5 heartbeats of silence: about a minute")
    heard = await listen(client)
    if not heard.asked:
        yield failed("stream", "nothing of it arrives", "see what the proxy has logged about /agent/stream-test")
        return
    if heard.shut_down:
        yield failed("stream", "chatd was shut down or restarted in the middle of it", "run this again")
        return
    for finding in judge(heard):
        yield finding


async def listen(client: Client) -> Heard:
    """Read the test stream to its end, or until nothing can come any more."""
    heard = Heard()
    async with client.stream("GET", "/agent/stream-test") as response:
        heard.encoding = response.headers.get("Content-Encoding", "")
        try:
            async with asyncio.timeout(LIMIT) as limit, aclosing(frames(response)) as coming:
                async for frame in coming:
                    heard.hear(frame)
                    if frame.event and frame.event["type"] == "request":
                        limit.reschedule(asyncio.get_running_loop().time() + frame.event["silence"] + PATIENCE)
        except (aiohttp.ClientError, OSError, TimeoutError):
            heard.cut = True
    heard.over = time.monotonic()
    return heard


def judge(heard: Heard) -> Iterator[Finding]:
    yield look_at_upstream(heard.asked["http_version"])
    yield look_at_compression(heard.encoding)
    yield look_at_rhythm(heard)
    yield look_at_silence(heard)


def look_at_upstream(version: str) -> Finding:
    if version == "1.1":
        return Finding("upstream", "the proxy speaks HTTP/1.1 to chatd")
    detail = f"the proxy speaks HTTP/{version} to chatd: a chatd that dies looks like the end of an answer"
    advice = "nginx, in the `server` block: proxy_http_version 1.1; proxy_set_header Connection close;"
    return failed("upstream", detail, advice)


def look_at_compression(encoding: str) -> Finding:
    if encoding in {"", "identity"}:
        return Finding("compression", "streams are not compressed")
    detail = f"streams are compressed ({encoding}), which may hold pieces back"
    return warning("compression", detail, "nginx: gzip off; for /agent/, or leave text/event-stream out of gzip_types")


def look_at_rhythm(heard: Heard) -> Finding:
    """Compare the rhythm in which numbers came with that in which they were sent; no two clocks are compared."""
    delays = [came - sent.timestamp() for came, sent in heard.numbers]
    if len(delays) < 2:
        return failed("buffering", "the numbers do not arrive", "see what the proxy has logged")
    off = max(delays) - min(delays)
    if off > LATE:
        detail = f"pieces are held back: of those sent within a second some came {off:.1f} s late"
        return failed("buffering", detail, "nginx: proxy_buffering off; gzip off; proxy_http_version 1.1;")
    return Finding("buffering", f"pieces arrive as they are sent, within {math.ceil(off * 1000)} ms")


def look_at_silence(heard: Heard) -> Finding:
    """Judge what became of the time in which there were heartbeats alone."""
    heartbeat, silence = heard.asked["heartbeat"], heard.asked["silence"]
    began = heard.numbers[-1][0] if heard.numbers else heard.last
    if heard.cut:
        detail = f"cut after {heard.over - heard.last:.1f} s without a byte; heartbeats come every {heartbeat:g} s"
        advice = f"nginx: proxy_read_timeout {5 * heartbeat:g}s; (five heartbeats); or lower CHATD_HEARTBEAT"
        return failed("idle time-out", detail, advice)
    due = math.ceil(silence / heartbeat) - 1  # one that is due just as the silence ends may not be sent
    gaps = [later - earlier for earlier, later in zip([began, *heard.pings], [*heard.pings, heard.last], strict=True)]
    if len(heard.pings) < due or max(gaps) > heartbeat + max(LATE, heartbeat / 2):
        detail = f"{len(heard.pings)} of {due} heartbeats came, at most {max(gaps):.1f} s apart"
        return failed("heartbeats", detail, "see what is between here and chatd, and buffers")
    return Finding("heartbeats", f"{len(heard.pings)} in {silence:g} s of silence, and the stream stays open")
