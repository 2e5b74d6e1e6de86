"""Two owners at once, each with a spy who tries to get at what is the other's, while everything breaks."""

import asyncio
import itertools
import random
from typing import Any

from tests.chat_client import CHARACTER
from tests.faults.clients import CUT, Caller, Transcript, callers, everyone, names
from tests.faults.conftest import Note, Scale, Supervise
from tests.faults.counting_model import CountingModel
from tests.faults.invariants import check
from tests.token_provider import SECRET, bearer, token

TURNS = 6  # of each caller
SETTINGS = {
    "CHATD_AUTH": "jwt",
    "CHATD_JWT_SECRET": SECRET,
    "CHATD_RATE_MESSAGES": "0",
    "CHATD_RATE_TURNS": "0",
    "CHATD_RATE_STREAMS": "0",
}


class Spy:
    """Asks for whatever of the other's sessions it hears of; bounded by nothing but the callers' work."""

    def __init__(self, caller: Caller, victims: list[Caller], victim: str, rng: random.Random) -> None:
        self.caller, self.victims, self.victim, self.rng = caller, victims, victim, rng
        self.tries = self.answers = 0

    async def keep_trying(self, over: asyncio.Event) -> None:
        while not over.is_set():
            heard_of = [t for victim in self.victims for t in victim.transcripts if t.acknowledged]
            if heard_of:
                await self.attempt(self.rng.choice(heard_of))
            await asyncio.sleep(0.02)

    async def attempt(self, transcript: Transcript) -> None:
        method, path, options = self.rng.choice(requests_for(transcript, next(NUMBERS)))
        self.tries += 1
        try:
            async with self.caller.session.request(method, self.caller.url + path, **options) as response:
                body = await response.text()
        except CUT:
            return
        self.answers += 1
        assert self.victim not in body, f"{method} {path}: {body}"
        assert transcript.session_id not in body, f"{method} {path}: {body}"
        own = path == "/agent/sessions"
        allowed = {200, 503} if own else {404, 503}
        if response.content_type == "text/event-stream":  # the database was away: heartbeats, then an end
            assert "data:" not in body, body
        else:
            assert response.status in allowed, f"{method} {path}: {response.status} {body}"


NUMBERS = itertools.count()


def requests_for(transcript: Transcript, n: int) -> list[tuple[str, str, dict[str, Any]]]:
    session = transcript.session_id
    cursor = {"headers": {"Last-Event-ID": f"{transcript.turn_id}.1"}}
    body = {"message": "what did they say?", "session_id": session, "character_id": CHARACTER}
    return [
        ("GET", f"/agent/chat/stream/{session}", {}),
        ("GET", f"/agent/chat/stream/{session}", cursor),
        ("GET", f"/agent/chat/history/{session}", {}),
        ("GET", f"/agent/session/{session}", {}),
        ("GET", "/agent/sessions", {}),
        ("PATCH", f"/agent/session/{session}", {"json": {"title": "mine"}}),
        ("DELETE", f"/agent/session/{session}", {}),
        ("POST", f"/agent/chat/stop/{session}", {}),
        ("POST", "/agent/stream-ticket", {"json": {"session_id": session}}),
        ("POST", "/agent/chat", {"json": body}),
        ("POST", "/agent/chat/stream", {"json": body, "headers": {"Idempotency-Key": f"spy-{n}"}}),
    ]


async def work(caller: Caller, numbers: range) -> None:
    """Ask question after question, with the keys that the other owner's callers use, too."""
    for n in numbers:
        await caller.ask(caller.question(count=60, pace=10), key=f"key-{n}", stream=n % 3 != 0)


async def test_two_owners(
    supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, rng: random.Random, note: Note
) -> None:
    """S1: two owners and their spies, one process killed again and again: nothing of one ever shows up at the other"""
    chatd = await supervise(**SETTINGS)
    over = asyncio.Event()
    count = scale.kill_callers // 3
    headers = {name: bearer(token(name, exp=4e9)) for name in ("alice", "bob")}
    async with (
        callers(chatd.url, names("alice", count), headers=headers["alice"]) as alices,
        callers(chatd.url, names("bob", count), headers=headers["bob"]) as bobs,
        callers(chatd.url, ["spy"], headers=headers["alice"]) as (alices_spy,),
        callers(chatd.url, ["spy"], headers=headers["bob"]) as (bobs_spy,),
    ):
        spies = [Spy(alices_spy, bobs, "bob", rng), Spy(bobs_spy, alices, "alice", rng)]
        working = asyncio.create_task(
            everyone(
                [
                    work(caller, range(n * TURNS, (n + 1) * TURNS))
                    for group in (alices, bobs)
                    for n, caller in enumerate(group)
                ]
            )
        )
        trying = [asyncio.create_task(spy.keep_trying(over)) for spy in spies]
        for _ in range(scale.process_kills):
            await asyncio.sleep(rng.uniform(1.0, 2.0))
            await chatd.kill()
        await working
        over.set()
        await asyncio.gather(*trying)
        note(await check(dsn, [t for caller in (*alices, *bobs) for t in caller.transcripts], model, [chatd]))
    note(f"spies: {sum(spy.tries for spy in spies)} attempts, {sum(spy.answers for spy in spies)} answered")
    assert all(spy.answers > 20 for spy in spies)
