"""The model's server fails in every way, and the answers are whole all the same."""

import asyncio
import random
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.faults.clients import Caller, Transcript, callers, everyone, names
from tests.faults.conftest import Note, Scale, Supervise
from tests.faults.counting_model import CountingModel, Fault, breaks_off
from tests.faults.invariants import check
from tests.faults.proxy import proxied
from tests.faults.resources import resident
from tests.model_server import Exchange

REFUSALS = [400, 401, 403, 404, 413, 422]
STALL = 3.0  # seconds, as the settings say; the first turns wait for the SDK to be imported, too
SETTINGS = {"CHATD_FIRST_CONTENT_TIMEOUT": str(STALL), "CHATD_IDLE_TIMEOUT": str(STALL)}


def refuses(status: int, **headers: str) -> Fault:
    return lambda exchange, _: exchange.fail(status, "api_error", "canary", **headers)


async def resets(exchange: Exchange, _: list[str]) -> None:
    exchange.reset()


def half(end: Callable[[Exchange], object]) -> Fault:
    """Say half of it, then end in some way."""

    async def fault(exchange: Exchange, pieces: list[str]) -> None:
        await exchange.start()
        await exchange.text(*pieces[: len(pieces) // 2], delay=0.01)
        if asyncio.iscoroutine(ending := end(exchange)):
            await ending

    return fault


async def pings(exchange: Exchange) -> None:
    while True:
        await exchange.event("ping")
        await asyncio.sleep(0.1)


FAULTS: dict[str, Fault] = {
    "429": refuses(429),
    "429, in 0.2 s": refuses(429, retry_after="0.2"),
    "429, some time": refuses(429, retry_after="some time"),
    "500": refuses(500),
    "504": refuses(504),
    "529": refuses(529),
    "reset": resets,
    "error event": breaks_off,
    "reset in the middle": half(Exchange.reset),
    "cut in the middle": half(lambda exchange: exchange.writer.close()),
    "clean end in the middle": half(Exchange.end),
    "no JSON": half(lambda exchange: exchange.raw(b"data: {\n\n")),
    "silence": half(lambda _: asyncio.sleep(60)),
    "nothing but pings": half(pings),
}


@pytest.mark.parametrize("prefill", [True, False])
async def test_every_failure_twice(
    supervise: Supervise, model: CountingModel, dsn: str, note: Note, prefill: bool
) -> None:
    """U1-U6: every way of failing, twice in each turn: the third attempt has the rest, and nothing is there twice"""
    model.refuses_prefill = not prefill
    supervisor = await supervise(**SETTINGS)
    async with callers(supervisor.url, [name.replace(" ", "-").replace(",", "") for name in FAULTS]) as users:
        questions = [user.question(count=60, pace=5) for user in users]
        for question, fault in zip(questions, FAULTS.values(), strict=True):
            model.faults[question.canary] = [fault, fault]
        await everyone([user.ask(question) for user, question in zip(users, questions, strict=True)])
        transcripts = [transcript for user in users for transcript in user.transcripts]
        note(f"{len(FAULTS)} ways, {'prefill' if prefill else 'prefill refused'}")
        note(await check(dsn, transcripts, model, [supervisor]))
    for transcript in transcripts:
        told = [event.data["attempt"] for event in transcript.received if event.kind == "retry"]
        assert told == [2, 3], transcript.question


async def test_a_definite_no(supervise: Supervise, model: CountingModel, dsn: str, note: Note) -> None:
    """U9: a request that is refused for good is not made again, and tells nothing"""
    supervisor = await supervise()
    async with callers(supervisor.url, ["c"]) as (user,):
        for status in REFUSALS:
            question = user.question()
            model.faults[question.canary] = [refuses(status)]
            end = (await user.ask(question)).received[-1].data
            assert end["code"] == "upstream_refused"
            assert "canary" not in str(end)
            assert model.asked[question.canary] == 1
        note(f"{REFUSALS}")
        note(await check(dsn, user.transcripts, model, [supervisor], complete=False))


async def test_a_torn_network(
    supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, note: Note, rng: random.Random
) -> None:
    """U4: bytes cut anywhere, connections reset at random: what is shown is always a part of the whole"""
    address = urlsplit(model.url)
    async with proxied((str(address.hostname), address.port or 0)) as proxy:
        supervisor = await supervise(ANTHROPIC_BASE_URL=proxy.url)
        proxy.slice = 7
        over = asyncio.Event()

        async def tear() -> None:
            for _ in range(scale.resets):
                await asyncio.sleep(rng.uniform(0.1, 0.5))
                proxy.reset_all()
            over.set()

        async with callers(supervisor.url, names("c", 10)) as users:
            await everyone([tear(), *(ask_until(user, over) for user in users)])
            transcripts = [transcript for user in users for transcript in user.transcripts]
            note(await check(dsn, transcripts, model, [supervisor], complete=False))
    whole = sum(transcript.received[-1].kind == "done" for transcript in transcripts)
    note(f"{whole} of {len(transcripts)} answers whole after {scale.resets} resets")
    assert whole


async def ask_until(user: Caller, over: asyncio.Event) -> None:
    while not over.is_set():
        await user.ask(user.question(count=40, pace=10))


@pytest.mark.full
async def test_nobody_there(supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, note: Note) -> None:
    """U10: the model's server is away for long: posts fail soon and clearly, and it goes on alone"""
    address = urlsplit(model.url)
    async with proxied((str(address.hostname), address.port or 0)) as proxy, callers("", names("c", 5)) as users:
        supervisor = await supervise(ANTHROPIC_BASE_URL=proxy.url)
        proxy.refuse()
        proxy.reset_all()
        begun = asyncio.get_running_loop().time()
        failed: list[Transcript] = []
        while asyncio.get_running_loop().time() < begun + scale.outage:
            for user in users:
                user.url = supervisor.url
            failed += await asyncio.gather(*(user.ask(user.question(count=5)) for user in users))
        await proxy.listen()
        answered = await asyncio.gather(*(user.ask(user.question(count=5)) for user in users))
        note(f"{len(failed)} turns failed while it was away for {scale.outage:g} s")
        note(await check(dsn, [*failed, *answered], model, [supervisor], complete=False))
    assert {transcript.received[-1].data.get("code") for transcript in failed} == {"upstream_unreachable"}
    assert all(transcript.received[-1].kind == "done" for transcript in answered)


async def test_a_flood(supervise: Supervise, model: CountingModel, dsn: str, note: Note) -> None:
    """U8: ten answers of 5 MB at once, as fast as they come, in pieces of 20,000 characters"""
    supervisor = await supervise()
    async with callers(supervisor.url, names("c", 10), deadline=120) as users:
        await users[0].ask(users[0].question(count=5))
        before = resident(supervisor.pid)
        await everyone([user.ask(user.question(count=250, pace=0, width=20_000)) for user in users])
        grown = resident(supervisor.pid) - before
        transcripts = [transcript for user in users for transcript in user.transcripts]
        note(f"memory {grown >> 20} MiB more for 50 MB of text")
        note(await check(dsn, transcripts, model, [supervisor]))
