"""Several processes: side by side on one database, behind nginx, one after the other on one socket."""

import asyncio
import random
import statistics
from pathlib import Path

import pytest

from tests.chat_client import until
from tests.faults.clients import Transcript, callers, everyone, names
from tests.faults.conftest import Note, Scale, Supervise
from tests.faults.counting_model import CountingModel
from tests.faults.invariants import check
from tests.faults.nginx import nginx
from tests.faults.supervisor import Supervisor, supervised
from tests.faults.workload import insist, working

LATE = """
import time
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + {offset}
time.time_ns = lambda: real_ns() + {offset} * 10**9
"""  # a sitecustomize.py
WATCHDOG = 1.5  # seconds


async def two(supervise: Supervise, tmp_path: Path, **environment: str) -> list[Supervisor]:
    """Start two processes that notice each other's death: they share a directory for their lock files."""
    environment["CHATD_DATA_DIR"] = str(tmp_path)
    return [await supervise("one", **environment), await supervise("two", **environment)]


async def test_two_behind_nginx(
    supervise: Supervise,
    tmp_path: Path,
    model: CountingModel,
    dsn: str,
    scale: Scale,
    rng: random.Random,
    note: Note,
) -> None:
    """D2: two processes on one database behind nginx, either of them killed again and again, under all of it"""
    both = await two(supervise, tmp_path)
    async with nginx(tmp_path / "nginx", [one.port for one in both]) as url:
        async with working(url, dsn, model, rng) as workload:
            for _ in range(scale.process_kills):
                await asyncio.sleep(rng.uniform(1.5, 3))
                await rng.choice(both).kill()
        note(await check(dsn, workload.transcripts, model, both, stopped=workload.stopped))


async def test_post_to_one_read_from_the_other_stop_from_the_other(
    supervise: Supervise, tmp_path: Path, model: CountingModel, dsn: str, note: Note
) -> None:
    """D2: a turn of one process, read and stopped at the other: at once, the same"""
    model.sent = {}
    one, other = await two(supervise, tmp_path)
    async with callers(one.url, ["here"]) as (here,), callers(other.url, names("there", 5)) as there:
        asking = asyncio.create_task(here.ask(here.question(count=1000, pace=20)))
        await until(lambda: bool(here.transcripts and here.transcripts[0].received))
        turn = here.transcripts[0]
        reading = [asyncio.create_task(user.read(turn)) for user in there]
        await asyncio.sleep(3)
        stopped = await insist(there[0], "POST", f"/agent/chat/stop/{turn.session_id}")
        assert stopped["stopped"] is True
        await asking
        seen = await asyncio.gather(*reading)
        note(await check(dsn, [turn, *seen], model, [one, other], complete=False))
    assert all(transcript.received == turn.received for transcript in seen)
    assert all(transcript.connections == 1 for transcript in [turn, *seen])
    own, others = delays([turn], model), delays(seen, model)
    note(f"a piece's delay: {own * 1000:.0f} ms at its process, {others * 1000:.0f} ms at the other (medians)")
    assert others < 0.2


def delays(transcripts: list[Transcript], model: CountingModel) -> float:
    """Return the median of the seconds between the model's sending and the client's reading."""
    assert model.sent is not None
    return statistics.median(
        at - model.sent[event.data["text"].split()[-1]]
        for transcript in transcripts
        for event, at in zip(transcript.received[20:], transcript.arrivals[20:], strict=True)
        if event.kind == "text"
    )


async def test_restarted_under_load(
    supervise: Supervise, tmp_path: Path, model: CountingModel, dsn: str, scale: Scale, rng: random.Random, note: Note
) -> None:
    """D3: SIGTERM again and again with streams through nginx: no request fails, readers are sent away in time"""
    supervisor = await supervise(CHATD_DRAIN_TIMEOUT="1")
    over = asyncio.Event()
    took: list[float] = []
    async with nginx(tmp_path / "nginx", [supervisor.port]) as url, callers(url, names("c", scale.drained)) as users:

        async def keep_asking(user_number: int) -> None:
            user = users[user_number]
            await asyncio.sleep(user_number / scale.drained)
            while not over.is_set():
                question = user.question(count=rng.randint(20, 120), pace=50)
                await user.ask(question, key=question.canary, stream=user_number % 5 > 0)

        async def restart() -> None:
            for _ in range(scale.drains):
                await asyncio.sleep(4)
                await supervisor.wait_ready()
                begun = asyncio.get_running_loop().time()
                assert await supervisor.terminate() == 0
                took.append(asyncio.get_running_loop().time() - begun)
            over.set()

        await everyone([restart(), *map(keep_asking, range(scale.drained))])
        transcripts = [transcript for user in users for transcript in user.transcripts]
        note(await check(dsn, transcripts, model, [supervisor]))
    failed = sum(t.bad_gateways for t in transcripts)
    note(f"{scale.drains} restarts, gone after {max(took):.1f} s at most, {failed} requests failed")
    assert failed == 0
    assert max(took) < 1 + 2


async def test_blue_and_green(tmp_path: Path, model: CountingModel, dsn: str, scale: Scale, note: Note) -> None:
    """D4: the next process starts on the same socket while the old one ends its answers: no stream is cut"""
    settings = {"DATABASE_URL": dsn, "ANTHROPIC_BASE_URL": model.url, "CHATD_DRAIN_TIMEOUT": "60"}
    async with (
        supervised(Supervisor(tmp_path / "blue", environment=settings)) as blue,
        callers(blue.url, names("c", scale.streams)) as users,
    ):
        asking = [asyncio.create_task(user.ask(user.question(count=150, pace=50))) for user in users]
        await until(lambda: all(user.transcripts and user.transcripts[0].received for user in users))
        async with supervised(Supervisor(tmp_path / "green", listening=blue.socket, environment=settings)) as green:
            blue.restarting = False
            ending = asyncio.create_task(blue.terminate())
            await asyncio.sleep(0.5)
            assert not ending.done()
            late = await users[0].ask(users[0].question(count=20, pace=10))
            transcripts = [*await asyncio.gather(*asking), late]
            assert await ending == 0
            note(await check(dsn, transcripts, model, [blue, green]))
    assert all(transcript.connections == 1 for transcript in transcripts)


async def test_the_watchdog_bites(supervise: Supervise, model: CountingModel, dsn: str, note: Note) -> None:
    """D5: the process hangs: the watchdog hears nothing, kills it, and its turns go on

    The test does the killing: this shows that a process that hangs says nothing. In tests/deploy the real one bites.
    """
    supervisor = await supervise(WATCHDOG_USEC=str(int(WATCHDOG * 1e6)))
    async with callers(supervisor.url, names("c", 10), silence=3) as users:
        asking = [asyncio.create_task(user.ask(user.question(count=150, pace=20))) for user in users]
        await until(lambda: all(user.transcripts and len(user.transcripts[0].received) > 5 for user in users))
        await until(lambda: supervisor.heard("WATCHDOG=1"))
        supervisor.freeze()
        loop = asyncio.get_running_loop()
        await until(lambda: not supervisor.heard("WATCHDOG=1", loop.time() - WATCHDOG), 10)
        await supervisor.kill()
        note(await check(dsn, await asyncio.gather(*asking), model, [supervisor]))


@pytest.mark.full
async def test_clocks_that_differ(
    supervise: Supervise, tmp_path: Path, model: CountingModel, dsn: str, note: Note
) -> None:
    """D7: one process's clock is an hour late, the other's early: leases go by the database's"""
    both = []
    for offset in (-3600, 3600):
        directory = tmp_path / f"clock{offset}"
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(LATE.format(offset=offset))
        both.append(await supervise(f"chatd{offset}", PYTHONPATH=str(directory)))
    late, early = both
    async with callers(late.url, names("late", 5)) as some, callers(early.url, names("early", 5)) as others:
        users = [*some, *others]
        asking = [asyncio.create_task(user.ask(user.question(count=400, pace=20))) for user in users]
        await asyncio.gather(*asking)
        for user in users:  # the next turn in the session of the other clock
            user.url = early.url if user in some else late.url
            await user.ask(user.question(count=5), user.transcripts[0].session_id)
        transcripts = [transcript for user in users for transcript in user.transcripts]
        note(await check(dsn, transcripts, model, both))
    assert all(transcript.connections == 1 for transcript in transcripts), "a turn was taken over"
