"""A bit of everything that clients do, for ever: asking, repeating, stopping, deleting, in all the ways there are."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.chat_client import CHARACTER
from tests.faults.clients import CUT, Caller, Transcript, is_gateways
from tests.faults.counting_model import CountingModel, breaks_off

GIVE_AWAY = """
    UPDATE agent_turns SET boot_id = $2, epoch = epoch + 1, lease_until = now() + interval '20 seconds'
    WHERE session_id = $1 AND state = 'running'
"""
LONG = {"count": 400, "pace": 20}


class Workload:
    """Workers that go on until they are told that it is over, and then finish what they have begun."""

    def __init__(self, url: str, dsn: str, model: CountingModel, rng: random.Random) -> None:
        self.url, self.dsn, self.model, self.rng = url, dsn, model, rng
        self.over = asyncio.Event()
        self.deleted: set[str] = set()  # sessions
        self.stopped: set[str] = set()  # canaries of turns that are stopped
        self.callers: list[Caller] = []

    @property
    def transcripts(self) -> list[Transcript]:
        """What was seen of sessions that are still there."""
        all_of_them = [transcript for caller in self.callers for transcript in caller.transcripts]
        return [transcript for transcript in all_of_them if transcript.session_id not in self.deleted]

    def workers(self) -> list[Any]:
        works: list[Callable[[Caller], Any]] = [
            self.ask,
            self.ask,
            self.ask_for_json,
            self.repeat,
            self.break_off,
            self.stop,
            self.delete,
            self.give_away,
        ]
        self.callers = [Caller(self.url, f"{work.__name__}{n}") for n, work in enumerate(works)]
        return [self.keep_on(work, caller) for work, caller in zip(works, self.callers, strict=True)]

    async def keep_on(self, work: Callable[[Caller], Any], caller: Caller) -> None:
        while not self.over.is_set():
            await work(caller)
        await caller.close()

    async def ask(self, caller: Caller) -> None:
        question = caller.question(count=self.rng.randint(10, 100), pace=10)
        session = self.rng.choice([None, await self.make_session(caller)])
        await caller.ask(question, session, key=question.canary)

    async def make_session(self, caller: Caller) -> str:
        body = await insist(caller, "POST", "/agent/session", json={"character_id": CHARACTER})
        return str(body["session_id"])

    async def ask_for_json(self, caller: Caller) -> None:
        question = caller.question(count=40, pace=10)
        await caller.ask(question, key=question.canary, stream=False)

    async def repeat(self, caller: Caller) -> None:
        """Send the same request three times, with one key: one turn."""
        question = caller.question(count=20, pace=10)
        asked = [await caller.ask(question, key=question.canary, stream=n != 1) for n in range(3)]
        assert len({transcript.turn_id for transcript in asked}) == 1
        caller.transcripts[-2:] = []

    async def break_off(self, caller: Caller) -> None:
        """Have the model fail in the middle of its answer."""
        question = caller.question(count=40, pace=10)
        self.model.faults[question.canary] = [breaks_off]
        await caller.ask(question, key=question.canary)

    async def stop(self, caller: Caller) -> None:
        asking, transcript = await self.begin(caller)
        await insist(caller, "POST", f"/agent/chat/stop/{transcript.session_id}")
        await asking
        assert transcript.received[-1].data.get("status") == "stopped"

    async def delete(self, caller: Caller) -> None:
        key = {"Idempotency-Key": uuid.uuid4().hex, "Prefer": "respond-async"}
        question = caller.question(**LONG)
        self.stopped.add(question.canary)
        body = {"message": str(question), "character_id": CHARACTER}
        session = (await insist(caller, "POST", "/agent/chat", json=body, headers=key))["session_id"]
        await asyncio.sleep(0.2)
        self.deleted.add(session)
        await insist(caller, "DELETE", f"/agent/session/{session}")

    async def give_away(self, caller: Caller) -> None:
        """Give a turn to a process that is not there, and stop it all the same."""
        asking, transcript = await self.begin(caller)
        conn = await asyncpg.connect(self.dsn)
        await conn.execute(GIVE_AWAY, transcript.session_id, uuid.uuid4())
        await conn.close()
        await insist(caller, "POST", f"/agent/chat/stop/{transcript.session_id}")
        await asking

    async def begin(self, caller: Caller) -> tuple[asyncio.Task[Transcript], Transcript]:
        """Ask for a long answer, to be stopped, and return when some of it is there."""
        question = caller.question(**LONG)
        self.stopped.add(question.canary)
        asking = asyncio.create_task(caller.ask(question, key=question.canary))
        await asyncio.sleep(0)
        transcript = caller.transcripts[-1]
        while len(transcript.received) < 10 and not asking.done():
            await asyncio.sleep(0.01)
        return asking, transcript


async def insist(caller: Caller, method: str, path: str, **options: Any) -> Any:
    """Make a request until it is answered, and return the body; a session that is gone was deleted."""
    async with asyncio.timeout(caller.deadline):
        while True:
            try:
                async with caller.session.request(method, caller.url + path, **options) as response:
                    again = response.status == 503 or is_gateways(response)
                    assert again or response.status in {200, 201, 202, 204, 404}, await response.text()
                    if not again:
                        return await response.json() if response.content_length else None
            except CUT:
                pass
            await asyncio.sleep(caller.retry_delay)


@asynccontextmanager
async def working(url: str, dsn: str, model: CountingModel, rng: random.Random) -> AsyncIterator[Workload]:
    """Run a workload while the block runs; then wait until all have finished."""
    workload = Workload(url, dsn, model, rng)
    async with asyncio.TaskGroup() as group:
        for work in workload.workers():
            group.create_task(work)
        yield workload
        workload.over.set()
