"""Callers who use chatd without a pause, and to whom nothing may go wrong meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.deploy.site import URL, Site, check_whole
from tests.faults.clients import Caller, Transcript

SHORT = {"count": 40, "pace": 20}
LONG = {"count": 450, "pace": 20}  # nine seconds: longer than what chatd waits for when it is told to stop
PATHS = ("/healthz", "/agent/sessions", "/openapi.json", "/")


class Load:
    """A dozen callers; each goes on until it is told that it is over, and then finishes what it has begun."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.over = asyncio.Event()
        self.transcripts: list[Transcript] = []
        self.answered = 0  # GETs

    def workers(self) -> list[Awaitable[None]]:
        asking = [self.stream, self.stream, self.stream, self.wait, self.wait, self.wait, self.stream_long]
        asking += [self.wait_long, self.leave_and_return]
        return [*map(self.keep_on, asking), *(self.keep_getting(path) for path in PATHS)]

    async def keep_on(self, work: Callable[[Caller], Awaitable[Transcript]]) -> None:
        caller = self.site.caller(cut_after=self.often if work == self.leave_and_return else lambda: None)
        while not self.over.is_set():
            self.transcripts.append(await work(caller))

    def often(self) -> int:
        return random.randint(1, 20)

    async def stream(self, caller: Caller) -> Transcript:
        return await caller.ask(caller.question(**SHORT))

    async def stream_long(self, caller: Caller) -> Transcript:
        return await caller.ask(caller.question(**LONG))

    async def wait(self, caller: Caller) -> Transcript:
        return await caller.ask(caller.question(**SHORT), stream=False)

    async def wait_long(self, caller: Caller) -> Transcript:
        return await caller.ask(caller.question(**LONG), stream=False)

    async def leave_and_return(self, caller: Caller) -> Transcript:
        return await caller.ask(caller.question(**SHORT))

    async def keep_getting(self, path: str) -> None:
        caller = self.site.caller()
        while not self.over.is_set():
            async with caller.session.get(URL + path) as response:
                assert response.status == 200, f"{path}: {response.status} {await response.text()}"
                await response.read()
            self.answered += 1
            await asyncio.sleep(0.02)

    async def check(self) -> None:
        """Nobody was refused or cut off; each answer is whole where it was read, and in the history."""
        for transcript in self.transcripts:
            where = f"{transcript.question.canary} ({transcript.connections} connections)"
            assert not transcript.refusals, f"{where}: refused or cut off"
            check_whole(transcript)
            history = await self.site.get(f"/agent/chat/history/{transcript.session_id}")
            texts = [message["content"] for message in history["messages"]]
            assert texts == [str(transcript.question), transcript.question.answer], where


@asynccontextmanager
async def under_load(site: Site) -> AsyncIterator[Load]:
    """Have callers while the block runs, wait until all have finished, and check what they saw."""
    load = Load(site)
    async with asyncio.TaskGroup() as group:
        for work in load.workers():
            group.create_task(work)  # type: ignore[arg-type]
        yield load
        load.over.set()
    await load.check()
