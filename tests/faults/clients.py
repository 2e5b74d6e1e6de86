"""Simulated users who want the whole answer, whatever breaks, and write down what they see."""

import asyncio
import itertools
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.chat_client import CHARACTER
from tests.faults.counting_model import Question
from tests.faults.proxy import AT_ONCE
from tests.sse_client import Event, events, text_of

CUT = (aiohttp.ClientError, ConnectionError, TimeoutError)
ENDS = {"done", "error"}
MAX_RETRY_AFTER = 0.5  # seconds: the tests are in a hurry

CutAfter = Callable[[], int | None]  # how many events to read before hanging up; None: never again


def never() -> int | None:
    return None


def kicks(rng: random.Random, times: int, most: int) -> CutAfter:
    """Return a policy that hangs up `times` times, after 1 to `most` events each."""
    left = itertools.count(times, -1)
    return lambda: rng.randint(1, most) if next(left) > 0 else None


@dataclass
class Transcript:
    """What one user saw of one turn."""

    question: Question
    session_id: str = ""
    turn_id: str = ""
    user_message_id: str = ""
    received: list[Event] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)  # of each event, by the monotonic clock
    answer: dict[str, Any] | None = None  # the body of a JSON answer
    connections: int = 0
    refusals: int = 0  # 503, or nobody there
    bad_gateways: int = 0  # a proxy's word that the daemon has gone in the middle of it
    in_doubt: bool = False  # cut before anything was acknowledged, and without a key to ask again with

    @property
    def acknowledged(self) -> bool:
        return bool(self.turn_id)

    @property
    def ended(self) -> bool:
        return self.answer is not None or bool(self.received and self.received[-1].kind in ENDS)

    @property
    def text(self) -> str:
        if self.answer is not None:
            return str(self.answer["message"]["content"])
        return text_of(self.received)

    @property
    def resets(self) -> int:
        return sum(event.kind == "reset" for event in self.received)

    @property
    def longest_pause(self) -> float:
        return max((b - a for a, b in itertools.pairwise(self.arrivals)), default=0.0)

    def acknowledge(self, ids: dict[str, Any]) -> None:
        self.session_id, self.turn_id = ids["session_id"], ids["turn_id"]
        self.user_message_id = ids.get("user_message_id", self.user_message_id)

    def add(self, event: Event) -> None:
        """Take an event in; raises AssertionError for one out of order or of another turn."""
        turn_id, _, seq = event.id.rpartition(".")
        if event.kind == "start":
            self.acknowledge(event.data)
        assert turn_id == self.turn_id, f"an event of {turn_id} in the stream of {self.turn_id}"
        last = self.received[-1].seq if self.received else 0
        if event.kind != "reset":
            assert int(seq) == last + 1, f"event {seq} after event {last} of {turn_id}"
        self.received.append(event)
        self.arrivals.append(time.monotonic())


class Caller:
    """A user with connections of their own; bounded in all that they wait for."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        deadline: float = 60.0,
        silence: float = 20.0,
        retry_delay: float = 0.05,
        cut_after: CutAfter = never,
        reset: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url, self.name, self.deadline, self.retry_delay = url, name, deadline, retry_delay
        self.cut_after, self.reset = cut_after, reset
        self.numbers = itertools.count(1)
        self.transcripts: list[Transcript] = []
        timeout = aiohttp.ClientTimeout(total=None, sock_read=silence)
        connector = aiohttp.TCPConnector(limit=0)
        self.session = aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers)

    async def close(self) -> None:
        await self.session.close()

    def question(self, count: int = 100, pace: int = 10, width: int = 0) -> Question:
        return Question(f"{self.name}.{next(self.numbers)}", count, pace, width)

    async def ask(
        self, question: Question, session_id: str | None = None, *, key: str | None = None, stream: bool = True
    ) -> Transcript:
        """Post a question and read to the end of its turn, whatever breaks."""
        transcript = Transcript(question)
        self.transcripts.append(transcript)
        async with asyncio.timeout(self.deadline):
            await self._post_until_acknowledged(transcript, session_id, key, stream=stream)
            if not transcript.in_doubt:
                await self._follow(transcript)
        return transcript

    async def read(self, of: Transcript) -> Transcript:
        """Read somebody's running turn from its first event to its end."""
        transcript = Transcript(of.question, of.session_id, of.turn_id, of.user_message_id)
        self.transcripts.append(transcript)
        async with asyncio.timeout(self.deadline):
            await self._follow(transcript)
        return transcript

    async def _post_until_acknowledged(
        self, transcript: Transcript, session_id: str | None, key: str | None, *, stream: bool
    ) -> None:
        path = "/agent/chat/stream" if stream else "/agent/chat"
        body = {"message": str(transcript.question), "session_id": session_id, "character_id": CHARACTER}
        headers = {"Idempotency-Key": key} if key else {}
        while not transcript.acknowledged and not transcript.in_doubt:
            try:
                async with self.session.post(self.url + path, json=body, headers=headers) as response:
                    wait = await self._take_answer(transcript, response)
            except aiohttp.ClientConnectorError:
                wait = self._refused(transcript)
            except CUT:
                wait = self.retry_delay
                transcript.in_doubt = not (key or transcript.acknowledged)
            if not transcript.acknowledged:
                await asyncio.sleep(wait)

    def _refused(self, transcript: Transcript, retry_after: str = "0") -> float:
        transcript.refusals += 1
        return max(self.retry_delay, min(float(retry_after), MAX_RETRY_AFTER))

    async def _take_answer(self, transcript: Transcript, response: aiohttp.ClientResponse) -> float:
        """Read what a POST answers; return how long to wait where it has to be made again."""
        transcript.connections += 1
        check_gateway(transcript, response)
        if response.status == 503:
            return self._refused(transcript, response.headers["Retry-After"])
        assert response.status in {200, 202}, f"{response.status}: {await response.text()}"
        if response.content_type == "text/event-stream":
            await self._read(transcript, response)
            return self.retry_delay
        body = await response.json()
        transcript.acknowledge(body)
        transcript.answer = body if response.status == 200 else None
        return 0.0

    async def _follow(self, transcript: Transcript) -> None:
        while not transcript.ended:
            try:
                await self._attach(transcript)
            except CUT:
                transcript.refusals += 1
            if not transcript.ended:
                await asyncio.sleep(self.retry_delay)

    async def _attach(self, transcript: Transcript) -> None:
        headers = {"Last-Event-ID": transcript.received[-1].id} if transcript.received else {}
        url = f"{self.url}/agent/chat/stream/{transcript.session_id}"
        async with self.session.get(url, headers=headers) as response:
            transcript.connections += 1
            check_gateway(transcript, response)
            if response.status == 204 and not transcript.received:
                await self._read_history(transcript)
                return
            assert response.status == 200, f"{response.status} {response.reason}: {await response.text()}"
            await self._read(transcript, response)

    async def _read(self, transcript: Transcript, response: aiohttp.ClientResponse) -> None:
        left = self.cut_after()
        async with aclosing(events(response)) as stream:
            async for event in stream:
                transcript.add(event)
                left = left and left - 1
                if left == 0 and not transcript.ended:
                    self._hang_up(response)
                    return

    def _hang_up(self, response: aiohttp.ClientResponse) -> None:
        transport = response.connection and response.connection.transport
        if self.reset and transport is not None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        response.close()

    async def _read_history(self, transcript: Transcript) -> None:
        """Take the answer from the history: its turn was over before it could be attached to."""
        url = f"{self.url}/agent/chat/history/{transcript.session_id}"
        async with self.session.get(url, params={"limit": "1"}) as response:
            check_gateway(transcript, response)
            assert response.status == 200, await response.text()
            (message,) = (await response.json())["messages"]
        transcript.answer = {"message": message}


def check_gateway(transcript: Transcript, response: aiohttp.ClientResponse) -> None:
    """Take a proxy's error for a cut; raises ConnectionError."""
    if is_gateways(response):
        transcript.bad_gateways += 1
        raise ConnectionError


def is_gateways(response: aiohttp.ClientResponse) -> bool:
    """Tell whether a proxy says that the daemon can't be reached or has hung up."""
    return response.status in {502, 504} and response.content_type == "text/html"


@asynccontextmanager
async def callers(url: str, names: Sequence[str], **options: Any) -> AsyncIterator[list[Caller]]:
    """Yield a caller for each name."""
    made = [Caller(url, name, **options) for name in names]
    try:
        yield made
    finally:
        await asyncio.gather(*(caller.close() for caller in made))


async def everyone(works: Sequence[Any]) -> None:
    """Run coroutines together; where one fails, end the others."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{n}" for n in range(count)]
