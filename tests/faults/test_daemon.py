"""The daemon is killed, frozen, starved; its turns go on."""

import asyncio
import random
import resource
from pathlib import Path

import pytest

from tests.chat_client import until
from tests.faults.clients import Caller, callers, everyone, names
from tests.faults.conftest import Note, Scale, Supervise
from tests.faults.counting_model import CountingModel
from tests.faults.invariants import check
from tests.faults.resources import check_resources, count, cpu_seconds, measure
from tests.faults.supervisor import Supervisor, supervised

SPARE = 20  # file descriptors
LEASE = 20.0  # seconds; another process looks every 5


async def keep_asking(caller: Caller, rng: random.Random, over: asyncio.Event, *, with_key: bool) -> None:
    """Ask one question after the other in one session, by both routes, until it is over."""
    session_id = None
    while not over.is_set():
        question = caller.question(count=rng.randint(20, 150), pace=20)
        key = question.canary if with_key else None
        asked = await caller.ask(question, session_id, key=key, stream=rng.random() < 0.8)
        session_id = None if asked.in_doubt else asked.session_id


async def kill_at_random(supervisor: Supervisor, rng: random.Random, scale: Scale, over: asyncio.Event) -> None:
    for _ in range(scale.kills):
        await asyncio.sleep(rng.uniform(*scale.kill_interval))
        await supervisor.wait_ready()
        await supervisor.kill()
    over.set()


async def test_killed_at_random_under_load(
    supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, rng: random.Random, note: Note
) -> None:
    """D2: kill -9 at random moments, again and again, under callers who ask all the time"""
    supervisor = await supervise()
    over = asyncio.Event()
    async with callers(supervisor.url, names("c", scale.kill_callers)) as users:
        asking = [keep_asking(user, rng, over, with_key=n % 2 == 0) for n, user in enumerate(users)]
        await everyone([kill_at_random(supervisor, rng, scale, over), *asking])
        await supervisor.wait_ready()
        transcripts = [transcript for user in users for transcript in user.transcripts]
        note(await check(dsn, transcripts, model, [supervisor]))
    assert all(transcript.ended or transcript.in_doubt for transcript in transcripts)
    assert not any(transcript.resets for transcript in transcripts)


@pytest.mark.full
async def test_killed_with_its_embedded_database(tmp_path: Path, model: CountingModel, note: Note) -> None:
    """D6: kill -9 (out of memory) of a daemon that owns its PostgreSQL, in the middle of answers"""
    supervisor = Supervisor(tmp_path, environment={"ANTHROPIC_BASE_URL": model.url})
    async with supervised(supervisor), callers(supervisor.url, names("c", 5)) as users:
        asking = [asyncio.create_task(user.ask(user.question(count=150, pace=20))) for user in users]
        await until(lambda: all(user.transcripts and len(user.transcripts[0].received) > 20 for user in users))
        await supervisor.kill()
        transcripts = await asyncio.gather(*asking)
        dsn = f"postgresql://chatd@/postgres?host={tmp_path / 'postgres'}&port=5432"
        note(await check(dsn, transcripts, model, [supervisor]))


@pytest.mark.full
async def test_out_of_file_descriptors(
    supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, note: Note
) -> None:
    """D6: no file descriptors left: accepting backs off without spinning, running answers go on, it recovers"""
    supervisor = await supervise()
    async with callers(supervisor.url, names("c", 3)) as users:
        await everyone([user.ask(user.question(count=10)) for user in users])
        warm = await measure(supervisor.pid, dsn)
        asking = [asyncio.create_task(user.ask(user.question(count=150, pace=20))) for user in users]
        await until(lambda: all(len(user.transcripts[-1].received) > 20 for user in users))
        soft, hard = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (count(supervisor.pid, "fd") + SPARE, hard))
        cpu = cpu_seconds(supervisor.pid)
        held = [await asyncio.open_connection("127.0.0.1", supervisor.port) for _ in range(scale.held_sockets)]
        await asyncio.gather(*asking)
        await asyncio.sleep(2)
        cpu = cpu_seconds(supervisor.pid) - cpu
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (soft, hard))
        for _, writer in held:
            writer.close()
        await supervisor.wait_ready(5)
        await everyone([user.ask(user.question(count=10)) for user in users])
        transcripts = [transcript for user in users for transcript in user.transcripts]
        note(await check(dsn, transcripts, model))
    note(f"{cpu:.1f} s of CPU in 5 s without descriptors")
    note(await check_resources(supervisor.pid, dsn, warm))
    assert cpu < 2.5
    assert not supervisor.tracebacks, supervisor.tracebacks


@pytest.mark.full
async def test_frozen_while_another_takes_over(
    supervise: Supervise, model: CountingModel, dsn: str, note: Note
) -> None:
    """D9: SIGSTOP until another process has taken the turns over, then SIGCONT: it writes nothing more"""
    old = await supervise("old", CHATD_HEARTBEAT="0.5")
    new = await supervise("new", CHATD_HEARTBEAT="0.5")
    async with callers(old.url, names("c", 10), silence=2.0) as users:
        asking = [asyncio.create_task(user.ask(user.question(count=200, pace=50))) for user in users]
        await until(lambda: all(user.transcripts and len(user.transcripts[0].received) > 20 for user in users))
        old.freeze()
        seen = [len(user.transcripts[0].received) for user in users]
        for user in users:
            user.url = new.url
        await until(
            lambda: all(len(user.transcripts[0].received) > n + 5 for user, n in zip(users, seen, strict=True)),
            LEASE + 15,
        )
        old.thaw()
        transcripts = await asyncio.gather(*asking)
        await asyncio.sleep(1)  # the old one has had the time to write what it held
        note(await check(dsn, transcripts, model, [old, new]))
    async with callers(old.url, ["again"]) as (user,):
        await user.ask(user.question(count=10))
