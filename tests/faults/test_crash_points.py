"""The daemon dies at every point in its code that matters, and what it was doing goes on."""

import asyncio
import random
import re
from importlib.resources import files
from pathlib import Path

import asyncpg
import pytest

from chatd.sweeps import EVENTS
from tests.chat_client import until
from tests.conftest import execute
from tests.faults.clients import callers
from tests.faults.conftest import Note, Scale, Supervise
from tests.faults.counting_model import CountingModel
from tests.faults.invariants import check
from tests.faults.proxy import proxied
from tests.faults.supervisor import Supervisor
from tests.faults.workload import working

POINTS = {
    point
    for file in Path(str(files("chatd"))).rglob("*.py")
    for point in re.findall(r'crash_point\("(\w+)"\)', file.read_text())
}
AT_THE_END = {"before_release", "after_release"}  # reached by SIGTERM
APART = {"before_abandon", "after_sweep_events", "before_migration_commit"}  # with tests of their own, below
KILLED = -9
SHORT_LIVES = 4  # points in a row; ten lives without new text would end a turn, and rightly
LONG_LIFE = 2.5  # seconds, enough for new text


async def die_at(supervisor: Supervisor, point: str) -> None:
    """Have the process replaced by one that dies at a point, and wait until the next one serves."""
    supervisor.environment["CHATD_CRASH_POINT"] = point
    exits, starts = len(supervisor.exits), len(supervisor.starts)
    await supervisor.kill()
    await until(lambda: len(supervisor.starts) > starts)
    del supervisor.environment["CHATD_CRASH_POINT"]
    if point.partition(":")[0] in AT_THE_END:
        await supervisor.wait_ready()
        await asyncio.sleep(1)
        await supervisor.terminate()
    try:
        await until(lambda: len(supervisor.exits) >= exits + 2, 60)
    except TimeoutError:
        raise AssertionError(f"{point} was never reached") from None
    assert supervisor.exits[exits + 1] == KILLED, f"{point}: {supervisor.exits}"
    await supervisor.wait_ready()


async def test_killed_at_every_point(
    supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, rng: random.Random, note: Note
) -> None:
    """D1: kill -9 at each of the crash points in the code, under a bit of everything"""
    supervisor = await supervise(CHATD_DRAIN_TIMEOUT="0.2")
    points = sorted(POINTS - APART)
    rng.shuffle(points)
    async with working(supervisor.url, dsn, model, rng) as workload:
        for passes in scale.crash_passes:
            for n, point in enumerate(points):
                await die_at(supervisor, point if point in AT_THE_END else f"{point}:{passes}")
                await asyncio.sleep(LONG_LIFE if n % SHORT_LIVES == 0 else 0)
    note(f"{len(points)} points, passes {scale.crash_passes}")
    note(await check(dsn, workload.transcripts, model, [supervisor], stopped=workload.stopped))


async def test_killed_before_undoing_what_is_in_doubt(
    supervise: Supervise, model: CountingModel, cluster: str, dsn: str, note: Note
) -> None:
    """D1: killed before a begin in doubt is undone: the caller repeats it with its key, and it is there once"""
    database = dsn.partition("?")[0].rpartition("/")[2]
    socket = Path(cluster.partition("host=")[2].partition("&")[0]) / ".s.PGSQL.5432"
    async with proxied(socket) as proxy, callers("", ["c"], deadline=90) as (user,):
        url = f"postgresql://chatd@127.0.0.1:{proxy.port}/{database}"
        supervisor = await supervise(DATABASE_URL=url, CHATD_CRASH_POINT="before_abandon")
        del supervisor.environment["CHATD_CRASH_POINT"]
        user.url = supervisor.url
        await user.ask(user.question(count=5))
        proxy.frozen = True
        asking = asyncio.create_task(user.ask(user.question(count=5), key="k"))
        await until(lambda: len(supervisor.exits) == 1, 20)
        proxy.frozen = False
        await asking
        assert supervisor.exits == [KILLED]
        note(await check(dsn, user.transcripts, model, [supervisor]))


async def test_killed_between_two_sweeps(supervise: Supervise, model: CountingModel, dsn: str, note: Note) -> None:
    """D1: killed between two batches of a sweep: the next process sweeps the rest, and nothing else is touched"""
    supervisor = await supervise(CHATD_EVENT_RETENTION="3600")
    async with callers(supervisor.url, ["c"]) as (user,):
        old, new = [await user.ask(user.question(count=200, pace=1)) for _ in range(2)]
    await execute(dsn, f"UPDATE agent_turns SET ended_at = now() - interval '1 day' WHERE id = '{old.turn_id}'")
    more = "INSERT INTO agent_events SELECT id, 1000 + n, '{}' FROM agent_turns, generate_series(1, $1) AS s (n)"
    conn = await asyncpg.connect(dsn)
    await conn.execute(f"{more} WHERE id = $2", 3 * EVENTS, old.turn_id)
    supervisor.environment["CHATD_CRASH_POINT"] = "after_sweep_events:2"
    await supervisor.kill()
    await until(lambda: len(supervisor.starts) == 2)
    del supervisor.environment["CHATD_CRASH_POINT"]
    await until(lambda: len(supervisor.exits) == 2)
    assert supervisor.exits == [KILLED, KILLED]
    async with asyncio.timeout(10):
        while await conn.fetchval("SELECT count(*) FROM agent_events WHERE turn_id = $1", old.turn_id):
            await asyncio.sleep(0.05)
    kept = await conn.fetchval("SELECT count(*) FROM agent_events WHERE turn_id = $1", new.turn_id)
    assert kept == len(new.received)
    assert await conn.fetchval("SELECT count(*) FROM agent_messages") == 4
    await conn.close()
    note(f"{3 * EVENTS:,} events swept in two lives")


@pytest.mark.parametrize("migration", [1, 2])
async def test_killed_while_it_migrates(
    tmp_path: Path, cluster: str, model: CountingModel, note: Note, migration: int
) -> None:
    """D8: killed in the middle of a migration: the next process begins it again"""
    name = f"unmigrated_{migration}"
    await execute(cluster, f"CREATE DATABASE {name}")
    dsn = cluster.replace("/postgres?", f"/{name}?")
    settings = {"DATABASE_URL": dsn, "ANTHROPIC_BASE_URL": model.url}
    settings["CHATD_CRASH_POINT"] = f"before_migration_commit:{migration}"
    supervisor = Supervisor(tmp_path, environment=settings)
    await supervisor.start()
    del supervisor.environment["CHATD_CRASH_POINT"]
    try:
        await supervisor.wait_ready()
        async with callers(supervisor.url, ["c"]) as (user,):
            await user.ask(user.question(count=10))
            note(await check(dsn, user.transcripts, model, [supervisor]))
    finally:
        await supervisor.stop()
    assert supervisor.exits[0] == KILLED
    await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")
