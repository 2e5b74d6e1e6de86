"""Clients hang up, vanish, never read, read slowly, come back all at once; nobody else notices."""

import asyncio
import itertools
import random
import socket
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.chat_client import Chat, until
from tests.faults.clients import Caller, Transcript, callers, everyone, kicks, names
from tests.faults.conftest import Note, Scale, Supervise
from tests.faults.counting_model import CountingModel
from tests.faults.invariants import check
from tests.faults.proxy import proxied
from tests.faults.resources import Resources, check_resources, count, established, measure, peak_memory, resident
from tests.faults.supervisor import Supervisor
from tests.sse_client import Event

HEARTBEAT, WRITE_TIMEOUT = 1.0, 2.0
IMPATIENT = {"CHATD_HEARTBEAT": str(HEARTBEAT), "CHATD_WRITE_TIMEOUT": str(WRITE_TIMEOUT)}
NOTICED = HEARTBEAT + WRITE_TIMEOUT + 1.5  # seconds after which a client that is gone may hold nothing
FILLED = 4.0  # seconds until all the buffers between are full
SMALL_BUFFER = 16_384  # bytes
DEAF_MEMORY = 1 << 20  # bytes that one who never reads may cost
TRIALS = 3
JITTER = 0.02  # seconds of latency that two busy cores make by themselves


async def warm_up(supervisor: Supervisor, dsn: str) -> Resources:
    """Have some turns answered and return what the process holds afterwards."""
    async with aiohttp.ClientSession(supervisor.url) as session:
        await everyone([Chat(session).stream("hello") for _ in range(20)])
    await asyncio.sleep(0.2)
    return await measure(supervisor.pid, dsn)


def transcripts_of(*groups: Sequence[Caller]) -> list[Transcript]:
    return [transcript for user in itertools.chain(*groups) for transcript in user.transcripts]


@asynccontextmanager
async def answering(user: Caller, pieces: int, pace: int, width: int = 0) -> AsyncIterator[Transcript]:
    """Yield a turn that is being answered to a user who reads all of it."""
    asking = asyncio.create_task(user.ask(user.question(pieces, pace, width)))
    try:
        await until(lambda: bool(user.transcripts and user.transcripts[-1].received))
        yield user.transcripts[-1]
        await asking
    finally:
        asking.cancel()


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_cut_in_the_middle(
    supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, rng: random.Random, note: Note, reset: bool
) -> None:
    """C1, C2: clients hang up (FIN, RST) after some events, and come back with their cursors"""
    supervisor = await supervise()
    warm = await warm_up(supervisor, dsn)
    async with callers(supervisor.url, names("c", scale.cutting_callers), reset=reset) as users:
        for user in users:
            user.cut_after = kicks(rng, scale.cuts, 8)
        await everyone([user.ask(user.question(count=scale.cuts * 15 + 50, pace=20)) for user in users])
        note(await check(dsn, transcripts_of(users), model, [supervisor]))
    cuts = sum(transcript.connections - 1 for transcript in transcripts_of(users))
    assert cuts >= scale.cuts * scale.cutting_callers
    note(f"{'RST' if reset else 'FIN'} {cuts} times; {await check_resources(supervisor.pid, dsn, warm)}")


@pytest.mark.full
async def test_vanished(supervise: Supervise, model: CountingModel, dsn: str, note: Note) -> None:
    """C2: clients vanish without a word: they are noticed, and resume when they are back"""
    supervisor = await supervise(**IMPATIENT)
    warm = await warm_up(supervisor, dsn)
    async with (
        proxied(("127.0.0.1", supervisor.port), receive_buffer=SMALL_BUFFER) as proxy,
        callers(supervisor.url, ["one"]) as (asker,),
        callers(proxy.url, names("lost", 10)) as lost,
        answering(asker, 100, 100, width=8000) as turn,
    ):
        reading = [asyncio.create_task(user.read(turn)) for user in lost]
        await until(lambda: all(user.transcripts and user.transcripts[0].received for user in lost))
        held = count(supervisor.pid, "fd")
        proxy.frozen = True
        begun = asyncio.get_running_loop().time()
        await until(lambda: count(supervisor.pid, "fd") <= held - len(lost), NOTICED)
        note(f"noticed after {asyncio.get_running_loop().time() - begun:.1f} s")
        proxy.reset_all()
        proxy.frozen = False
        await asyncio.gather(*reading)
    note(await check(dsn, transcripts_of([asker], lost), model, [supervisor]))
    note(await check_resources(supervisor.pid, dsn, warm))


async def read_together(users: Sequence[Caller], turns: Sequence[Transcript]) -> None:
    """Have the users read the turns, as many each."""
    await everyone([user.read(turn) for user, turn in zip(users, itertools.cycle(turns), strict=False)])


def last_piece(event: Event) -> str:
    return str(event.data["text"].split()[-1])


async def measure_latency(url: str, model: CountingModel, readers: int, name: str) -> tuple[float, list[Transcript]]:
    """Return the 99th percentile of the seconds from the model's piece to its readers, who read ten turns."""
    async with callers(url, names(f"{name}asker", 10)) as askers, callers(url, names(name, readers)) as users:
        asking = [asyncio.create_task(user.ask(user.question(count=120, pace=50))) for user in askers]
        await until(lambda: all(user.transcripts and user.transcripts[0].received for user in askers))
        await read_together(users, transcripts_of(askers))
        await asyncio.gather(*asking)
        sent = model.sent or {}
        late = [
            at - sent[last_piece(event)]
            for transcript in transcripts_of(users)
            for event, at in zip(transcript.received, transcript.arrivals, strict=True)
            if event.kind == "text" and sent[last_piece(event)] > transcript.arrivals[0]
        ]
    return statistics.quantiles(late, n=100)[98], transcripts_of(askers, users)


def connect_deaf(port: int, session_id: str) -> socket.socket:
    """Attach to a stream that is never read."""
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    deaf.connect(("127.0.0.1", port))
    deaf.sendall(f"GET /agent/chat/stream/{session_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return deaf


async def wait_dropped(port: int, sockets: Sequence[socket.socket]) -> float:
    """Wait until the server has dropped all, and return the seconds that it took."""
    begun = asyncio.get_running_loop().time()
    ports = {one.getsockname()[1] for one in sockets}
    await until(lambda: not ports & established(port), FILLED + NOTICED)
    return asyncio.get_running_loop().time() - begun


@pytest.mark.full
async def test_never_reading(supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, note: Note) -> None:
    """C3: readers that never read beside readers that do: dropped in time, and nobody else is slower for them"""
    supervisor = await supervise(**IMPATIENT)
    warm = await warm_up(supervisor, dsn)
    model.sent = {}
    seen: list[Transcript] = []
    for trial in range(TRIALS):  # the cores may have had something else to do
        alone, ours = await measure_latency(supervisor.url, model, scale.good_readers, f"alone{trial}-")
        seen += ours
        beside, ours = await measure_beside(supervisor, model, scale, note, f"{trial}-")
        seen += ours
        note(f"p99 {alone * 1000:.0f} ms alone, {beside * 1000:.0f} ms beside them")
        if beside <= max(2 * alone, alone + JITTER):
            break
    else:
        raise AssertionError("those that do not read slow the others down")
    note(await check(dsn, seen, model, [supervisor]))
    note(await check_resources(supervisor.pid, dsn, warm))


async def measure_beside(
    supervisor: Supervisor, model: CountingModel, scale: Scale, note: Note, suffix: str
) -> tuple[float, list[Transcript]]:
    """Return what `measure_latency` does, beside many who never read; they are dropped in time and cost little."""
    async with callers(supervisor.url, names(f"wide{suffix}", 10)) as askers:
        asking = [asyncio.create_task(user.ask(user.question(count=40, pace=250, width=16_000))) for user in askers]
        await until(lambda: all(user.transcripts and user.transcripts[0].received for user in askers))
        memory, turns = resident(supervisor.pid), itertools.cycle(transcripts_of(askers))
        deaf = [connect_deaf(supervisor.port, next(turns).session_id) for _ in range(scale.deaf_readers)]
        dropping = asyncio.create_task(wait_dropped(supervisor.port, deaf))
        reading = measure_latency(supervisor.url, model, scale.good_readers, f"beside{suffix}")
        measuring = asyncio.create_task(reading)
        memory = await peak_memory(supervisor.pid, measuring) - memory
        late, seen = await measuring
        dropped = await dropping
        await asyncio.gather(*asking)
        for one in deaf:
            one.close()
    note(f"{len(deaf)} never read: {memory / len(deaf) / 1024:.0f} KiB for each, all dropped after {dropped:.1f} s")
    assert memory < len(deaf) * DEAF_MEMORY
    return late, seen + transcripts_of(askers)


@pytest.mark.full
async def test_reading_slowly(supervise: Supervise, model: CountingModel, dsn: str, note: Note) -> None:
    """C4: a client that takes 1 KB/s holds up nobody, and has it all in the end"""
    supervisor = await supervise(**IMPATIENT)
    async with (
        proxied(("127.0.0.1", supervisor.port), receive_buffer=SMALL_BUFFER) as proxy,
        callers(supervisor.url, ["fast"]) as (fast,),
        callers(proxy.url, ["slow"]) as (slow,),
    ):
        proxy.bandwidth = 1024
        begun = asyncio.get_running_loop().time()
        async with answering(fast, 150, 10, width=3000) as turn:
            reading = asyncio.create_task(slow.read(turn))
        seconds = asyncio.get_running_loop().time() - begun
        await asyncio.sleep(3)
        behind = len(fast.transcripts[0].received) - len(slow.transcripts[0].received)
        proxy.bandwidth = None
        await reading
    note(f"{behind} events behind after {seconds:.1f} s; {slow.transcripts[0].connections} connections")
    note(await check(dsn, transcripts_of([fast, slow]), model, [supervisor]))
    assert behind > 0
    assert seconds < 10


async def test_coming_back_all_at_once(
    supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, rng: random.Random, note: Note
) -> None:
    """C5: a storm: all readers are kicked again and again while they read; no gap, no repeat"""
    supervisor = await supervise()
    warm = await warm_up(supervisor, dsn)
    readers = scale.storm_turns * scale.storm_readers
    async with (
        callers(supervisor.url, names("asker", scale.storm_turns), deadline=180) as askers,
        callers(supervisor.url, names("reader", readers), deadline=180) as users,
    ):
        for user in users:
            user.cut_after = kicks(rng, scale.storm_kicks, 3)
        pieces = scale.storm_kicks * 12
        asking = [asyncio.create_task(user.ask(user.question(pieces, pace=200))) for user in askers]
        await until(lambda: all(user.transcripts and user.transcripts[0].received for user in askers))
        await read_together(users, transcripts_of(askers))
        await asyncio.gather(*asking)
        note(await check(dsn, transcripts_of(askers, users), model, [supervisor]))
    kicked = sum(transcript.connections - 1 for transcript in transcripts_of(users))
    note(f"{readers} readers kicked {kicked} times; {await check_resources(supervisor.pid, dsn, warm)}")
    assert kicked >= readers * scale.storm_kicks


async def test_many_tabs(supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, note: Note) -> None:
    """C8: many readers of one turn, each since another moment: identical streams"""
    supervisor = await supervise()
    async with callers(supervisor.url, ["one"]) as (asker,), callers(supervisor.url, names("tab", scale.tabs)) as tabs:
        async with answering(asker, 150, 20) as turn:
            reading = []
            for user in tabs:
                reading.append(asyncio.create_task(user.read(turn)))
                await asyncio.sleep(0.01)
            await asyncio.gather(*reading)
        note(await check(dsn, transcripts_of([asker], tabs), model, [supervisor]))
    for transcript in transcripts_of(tabs):
        assert transcript.received == turn.received
