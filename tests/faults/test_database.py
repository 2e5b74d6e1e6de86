"""PostgreSQL is restarted, killed, frozen, locked, full, slow, cut off; answers wait for it and lose nothing."""

import asyncio
import os
import random
import shutil
import signal
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from chatd.embedded import SETTINGS, Postgres
from tests.chat_client import CHARACTER, until
from tests.faults.clients import Caller, Transcript, callers, everyone, names
from tests.faults.conftest import Note, Scale, Supervise
from tests.faults.counting_model import CountingModel
from tests.faults.invariants import check
from tests.faults.proxy import Proxy, proxied
from tests.faults.supervisor import Supervisor, supervised
from tests.test_hostile import family, tell

PIECES = 200
COLD = 10  # events of a stream while everybody begins or ends at once, each connection's first queries of that kind
FAR = 0.45  # seconds: a round trip of 0.2, and as much while the commit before is under way
ROOM = 24 << 20  # bytes left on the disk before it fills up
PATIENCE = 1.0  # seconds that a stream may pause longer than the database is away
UP = 1.5  # seconds that the database is there before it is restarted again


async def restart(postgres: Postgres, number: signal.Signals) -> float:
    """End PostgreSQL by a signal, start it again, and return how long it was away."""
    assert postgres.process is not None
    begun = time.monotonic()
    postgres.process.send_signal(number)
    await postgres.process.wait()
    await postgres.start(SETTINGS)
    return time.monotonic() - begun


@asynccontextmanager
async def asking(url: str, count: int, pieces: int, silence: float = 20.0) -> AsyncIterator[list[Caller]]:
    """Have callers ask a question each, yield them in the middle of their answers, and wait for the ends."""
    async with callers(url, names("c", count), deadline=180, silence=silence) as users, asyncio.TaskGroup() as group:
        for user in users:
            group.create_task(user.ask(user.question(count=pieces, pace=50), key="k-" + user.name))
        await until(lambda: all(user.transcripts and len(user.transcripts[0].received) > 3 for user in users), 30)
        yield users


def transcripts_of(users: Sequence[Caller]) -> list[Transcript]:
    return [transcript for user in users for transcript in user.transcripts]


def longest_pause(transcripts: Sequence[Transcript], since: float) -> float:
    """Return the longest time between two events of a stream, the first of which came after a moment or just before."""
    pauses = [
        later - earlier
        for transcript in transcripts
        for earlier, later in zip(transcript.arrivals, transcript.arrivals[1:], strict=False)
        if later >= since
    ]
    return max(pauses, default=0.0)


@pytest.mark.parametrize("number", [signal.SIGQUIT, pytest.param(signal.SIGINT, marks=pytest.mark.full)])
async def test_restarted(
    supervise: Supervise, model: CountingModel, postgres: Postgres, scale: Scale, note: Note, number: signal.Signals
) -> None:
    """P1, P2: PostgreSQL restarted again and again, immediate and fast, under streams"""
    supervisor = await supervise(DATABASE_URL=postgres.dsn())
    outages: list[tuple[float, float]] = []  # how long it was away, how long a stream paused
    seconds = scale.restarts * (UP + 0.5) + 3
    async with asking(supervisor.url, scale.streams, int(seconds * 20)) as users:
        for _ in range(scale.restarts):
            begun = time.monotonic()
            away = await restart(postgres, number)
            await asyncio.sleep(UP)
            outages.append((away, longest_pause(transcripts_of(users), begun)))
    note(f"{number.name} x {len(outages)}: away {max(away for away, _ in outages):.2f} s at most")
    note(f"paused {max(pause - away for away, pause in outages):.2f} s longer than that at most")
    note(await check(postgres.dsn(), transcripts_of(users), model, [supervisor]))
    assert all(pause <= away + PATIENCE for away, pause in outages), outages
    assert all(transcript.connections == 1 for transcript in transcripts_of(users)), "a stream was cut"


async def test_connections_ended(
    supervise: Supervise, model: CountingModel, postgres: Postgres, scale: Scale, note: Note, rng: random.Random
) -> None:
    """P2: kill -9 of a backend (all crash and recover), and all connections terminated, again and again"""
    supervisor = await supervise(DATABASE_URL=postgres.dsn())
    async with asking(supervisor.url, scale.streams, scale.restarts * 20 + 60) as users:
        for n in range(scale.restarts):
            conn = await connect(postgres.dsn())
            query = "FROM pg_stat_activity WHERE application_name = 'chatd'"
            if n % 2:
                await conn.execute(f"SELECT pg_terminate_backend(pid) {query}")
            else:
                pids = [row["pid"] for row in await conn.fetch(f"SELECT pid {query}")]
                os.kill(rng.choice(pids), signal.SIGKILL)
            conn.terminate()
            await asyncio.sleep(1)
    note(f"{scale.restarts} times")
    note(await check(postgres.dsn(), transcripts_of(users), model, [supervisor]))


async def connect(dsn: str) -> asyncpg.Connection:
    """Connect as soon as there is a database to connect to."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await asyncpg.connect(dsn)
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.05)


async def refused(url: str, session_id: str | None) -> None:
    """Post while the database is away: 503 with Retry-After, and the process is alive."""
    body = {"message": "meanwhile", "session_id": session_id, "character_id": CHARACTER}
    async with aiohttp.ClientSession(url) as session:
        async with session.post("/agent/chat", json=body) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            assert (await response.json(content_type=None))["code"] == "unavailable"
        async with session.get("/healthz") as response:
            assert response.status == 200


async def test_frozen(supervise: Supervise, model: CountingModel, postgres: Postgres, scale: Scale, note: Note) -> None:
    """P3: PostgreSQL frozen (SIGSTOP): posts are refused, streams are kept alive, all goes on when it thaws"""
    supervisor = await supervise(DATABASE_URL=postgres.dsn(), CHATD_HEARTBEAT="1")
    assert postgres.process is not None
    async with asking(supervisor.url, scale.streams, int((scale.outage + 8) * 20), silence=3) as users:
        pids = family(postgres.process.pid)
        tell(pids, signal.SIGSTOP)
        begun = time.monotonic()
        try:
            await asyncio.gather(*(refused(supervisor.url, user.transcripts[0].session_id) for user in users[:5]))
            told = time.monotonic() - begun
            await asyncio.sleep(max(0.0, begun + scale.outage - time.monotonic()))
        finally:
            tell(pids, signal.SIGCONT)
    assert all(transcript.connections == 1 for transcript in transcripts_of(users)), "a stream was cut"
    note(f"frozen for {scale.outage:g} s, posts refused after {told:.1f} s")
    note(await check(postgres.dsn(), transcripts_of(users), model, [supervisor]))


@pytest.mark.full
async def test_away(supervise: Supervise, model: CountingModel, postgres: Postgres, scale: Scale, note: Note) -> None:
    """P4: PostgreSQL down for long: posts are refused before anything is written, running answers are kept"""
    supervisor = await supervise(DATABASE_URL=postgres.dsn(), CHATD_HEARTBEAT="1")
    async with asking(supervisor.url, scale.streams, int((scale.outage + 5) * 20), silence=3) as users:
        await postgres.stop()
        begun = time.monotonic()
        while time.monotonic() < begun + scale.outage:
            await refused(supervisor.url, users[0].transcripts[0].session_id)
            await asyncio.sleep(0.2)
        await postgres.start(SETTINGS)
        back = time.monotonic()
        await until(lambda: all(t.arrivals[-1] > back for t in transcripts_of(users)), PATIENCE)
    note(f"away for {scale.outage:g} s")
    note(await check(postgres.dsn(), transcripts_of(users), model, [supervisor]))


@asynccontextmanager
async def proxied_database(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Yield a proxy in front of PostgreSQL's Unix socket, and a DSN that goes through it."""
    database = dsn.partition("?")[0].rpartition("/")[2]
    directory = dsn.partition("host=")[2].partition("&")[0]
    async with proxied(Path(directory) / ".s.PGSQL.5432") as proxy:
        yield proxy, f"postgresql://chatd@127.0.0.1:{proxy.port}/{database}"


async def test_commits_in_doubt(
    supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, note: Note, rng: random.Random
) -> None:
    """P5: connections to PostgreSQL reset while commits are under way: done once, whether or not they were done"""
    async with proxied_database(dsn) as (proxy, url):
        supervisor = await supervise(DATABASE_URL=url)
        proxy.latency = 0.005
        over = asyncio.Event()
        async with callers(supervisor.url, names("c", scale.streams), deadline=120) as users:
            asking = [ask_until(user, over, rng, with_key=n % 2 == 0) for n, user in enumerate(users)]
            await everyone([reset_at_random(proxy, scale.resets, over, rng), *asking])
        proxy.latency = 0.0
        note(f"{scale.resets} resets")
        note(await check(dsn, transcripts_of(users), model, [supervisor]))


async def ask_until(user: Caller, over: asyncio.Event, rng: random.Random, *, with_key: bool) -> None:
    while not over.is_set():
        question = user.question(count=rng.randint(1, 60), pace=10)
        await user.ask(question, key=question.canary if with_key else None, stream=rng.random() < 0.7)


async def reset_at_random(proxy: Proxy, times: int, over: asyncio.Event, rng: random.Random) -> None:
    for _ in range(times):
        await asyncio.sleep(rng.uniform(0.05, 0.4))
        proxy.reset_all()
    over.set()


@pytest.mark.full
async def test_locked(supervise: Supervise, model: CountingModel, dsn: str, note: Note) -> None:
    """P6: somebody locks the tables for long: posts are refused in time, no deadlock, all goes on"""
    supervisor = await supervise()
    async with asking(supervisor.url, 10, 250) as users:
        conn = await asyncpg.connect(dsn)
        async with conn.transaction():
            await conn.execute("LOCK TABLE agent_sessions, agent_turns, agent_events IN ACCESS EXCLUSIVE MODE")
            begun = time.monotonic()
            await asyncio.gather(*(refused(supervisor.url, None) for _ in range(30)))  # more than the pool has
            told = time.monotonic() - begun
        await conn.close()
    note(f"30 posts refused after {told:.1f} s at most")
    note(await check(dsn, transcripts_of(users), model, [supervisor]))
    assert told < 8


@pytest.mark.full
async def test_no_connections_left(supervise: Supervise, model: CountingModel, postgres: Postgres, note: Note) -> None:
    """P6: max_connections reached while the daemon has lost its own: it waits, and takes them when they are free"""
    supervisor = await supervise(DATABASE_URL=postgres.dsn())
    async with asking(supervisor.url, 10, 200) as users:
        supervisor.freeze()
        greedy = await take_all_connections(postgres.dsn())
        await greedy[0].execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE application_name = 'chatd'"
        )
        greedy += await take_all_connections(postgres.dsn())
        supervisor.thaw()
        await refused(supervisor.url, None)
        await asyncio.sleep(2)
        for conn in greedy:
            conn.terminate()
    note(f"{len(greedy)} connections taken")
    note(await check(postgres.dsn(), transcripts_of(users), model, [supervisor]))


async def take_all_connections(dsn: str) -> list[asyncpg.Connection]:
    taken: list[asyncpg.Connection] = []
    try:
        while True:
            taken.append(await asyncpg.connect(dsn))
    except asyncpg.TooManyConnectionsError:
        return taken


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 160 MB of the test's own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=160m,mode=0700 tmpfs '{disk}'"):
        pytest.skip("only root can mount a small file system")
    yield disk
    os.system(f"umount -l '{disk}'")


@pytest.mark.full
async def test_disk_full(small_disk: Path, model: CountingModel, note: Note) -> None:
    """P7: the disk is full: posts are refused, nothing crashes for good, and it goes on when there is room again"""
    supervisor = Supervisor(small_disk, environment={"ANTHROPIC_BASE_URL": model.url})
    dsn = f"postgresql://chatd@/postgres?host={small_disk / 'postgres'}&port=5432"
    async with supervised(supervisor):
        async with asking(supervisor.url, 10, 300) as users:
            ballast = small_disk / "ballast"
            ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - ROOM))
            await fill(dsn)
            async with asyncio.timeout(20):
                while not await is_refused(supervisor.url):
                    await asyncio.sleep(0.1)
            await asyncio.sleep(3)
            ballast.unlink()
        assert len(supervisor.starts) == 1, "the daemon crashed"
        note(await check(dsn, transcripts_of(users), model))


async def fill(dsn: str) -> None:
    """Write tables until PostgreSQL has no room any more."""
    conn = await asyncpg.connect(dsn)
    await conn.execute("CREATE TABLE filling (noise text)")
    noise = "SELECT string_agg(md5(n::text || random()), '') FROM generate_series(1, 30000) AS s (n)"
    try:
        async with asyncio.timeout(30):
            while True:
                await conn.execute(f"INSERT INTO filling {noise}")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        conn.terminate()


async def is_refused(url: str) -> bool:
    body = {"message": "is there room?", "character_id": CHARACTER}
    async with (
        aiohttp.ClientSession(url, headers={"Prefer": "respond-async"}) as session,
        session.post("/agent/chat", json=body) as response,
    ):
        assert response.status in {202, 503}
        return response.status == 503


def delays(transcript: Transcript, model: CountingModel) -> list[float]:
    """Return how long after the model's sending its last piece each event of text came, in seconds."""
    assert model.sent is not None
    return [
        at - model.sent[event.data["text"].split()[-1]]
        for event, at in zip(transcript.received, transcript.arrivals, strict=True)
        if event.kind == "text"
    ]


@pytest.mark.full
async def test_far_away(supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, note: Note) -> None:
    """P8: PostgreSQL answers 200 ms late: the group commit keeps up"""
    model.sent = {}
    async with proxied_database(dsn) as (proxy, url):
        supervisor = await supervise(DATABASE_URL=url)
        proxy.latency = 0.1
        async with asking(supervisor.url, scale.streams, PIECES) as users:
            pass
        proxy.latency = 0.0
        transcripts = transcripts_of(users)
        late = [delay for transcript in transcripts for delay in delays(transcript, model)]
        steady = [delay for transcript in transcripts for delay in delays(transcript, model)[COLD:-COLD]]
        note(await check(dsn, transcripts, model, [supervisor]))
    marks, later = statistics.quantiles(late, n=100), statistics.quantiles(steady, n=100)
    note(f"delay of a piece: p50 {marks[49] * 1000:.0f} ms, p99 {marks[98] * 1000:.0f} ms")
    note(f"without each stream's first and last {COLD}: p50 {later[49] * 1000:.0f} ms, p99 {later[98] * 1000:.0f} ms")
    assert later[49] < FAR and later[98] < 3 * FAR
