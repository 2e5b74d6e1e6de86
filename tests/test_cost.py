"""What turns, flushes, pieces and readers cost, counted: whoever has chatd do more has to say so in these tables."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from chatd import sse, turn_log
from chatd.config import Config
from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.counters import count_statements, count_work
from tests.model_server import Exchange, ModelServer, Script
from tests.sse_client import events
from tests.test_recovery import sql
from tests.test_stop import begin, silent

# Statements, named as in sql/queries; `ANSWER` is that of an answer with one flush.
BEGIN = {"begin_turn": 1}
ANSWER = {"list_context": 1, "append_events": 1, "finish_turn": 1}
READ_ANSWER = {"find_message": 1}
ATTACH = {"find_latest_turn": 1}
ATTACH_AT_CURSOR = {"find_latest_turn": 1, "list_events": 1}
# The tasks and timers of a flush are asyncpg's: to take a connection, to time its statement and to give it back.
FLUSH = {
    "timer Timeout._on_timeout": 2,
    "timer BaseProtocol._on_timeout": 1,
    "task PoolConnectionHolder.release": 1,
}
ENCODED = {"start": 1, "text": 1, "done": 1}  # how often each event is made JSON

PIECES = 60
FLUSHES = 20
DAY = 86_400.0


@pytest.fixture
async def warm(start: Start, model: ModelServer) -> Chat:
    """Return a chatd whose only connection has prepared a turn's statements, and that flushes each piece at once."""
    chat = await start(db_pool=1, flush_interval=0, idle_timeout=DAY)

    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("Hello")
        await until(lambda: have_published(chat, 2))
        await exchange.stop()

    model.default = script
    await chat.post("hi")
    return chat


def have_published(chat: Chat, count: int) -> bool:
    """Tell whether every turn that runs has published so many events."""
    return all(len(run.log.frames) == count for run in chat.turns.running.values())


async def test_every_connection_is_counted(warm: Chat) -> None:
    """There is none but the pool's, and the one that listens."""
    own = "datname = current_database() AND application_name = 'chatd'"
    assert await sql(warm, f"SELECT count(*) FROM pg_stat_activity WHERE {own}") <= 2


async def test_a_turn_in_a_new_session(warm: Chat) -> None:
    statements = await count_statements(warm)
    await warm.post("hi")
    assert statements == {**BEGIN, **ANSWER, **READ_ANSWER}


async def test_a_turn_in_a_session_that_is_there(warm: Chat) -> None:
    session = (await warm.session())["session_id"]
    statements = await count_statements(warm)
    await warm.post("hi", session)
    assert statements == {**BEGIN, **ANSWER, **READ_ANSWER}


async def test_a_turn_that_is_streamed(warm: Chat) -> None:
    session = (await warm.session())["session_id"]
    statements = await count_statements(warm)
    await warm.stream("hi", session)
    assert statements == {**BEGIN, **ANSWER}


async def test_readers_of_a_turn_that_runs(warm: Chat, model: ModelServer) -> None:
    """Their events come from memory."""
    model.default = silent
    async with warm.streaming("hi") as response:
        first = await anext(events(response))
        await until(lambda: len(model.requests) == 2)
        statements = await count_statements(warm)
        async with warm.attaching(first.data["session_id"]):
            assert statements == ATTACH
        statements.clear()
        async with warm.attaching(first.data["session_id"], first.id):
            assert statements == ATTACH_AT_CURSOR


@pytest.mark.parametrize("turns", [1, 20])
async def test_turns_share_a_flush(chat: Chat, model: ModelServer, config: Config, turns: int) -> None:
    """What all turns say while a flush is under way is in the next one."""
    first, others = asyncio.Event(), asyncio.Event()
    model.play([says_at(first), *[says_at(others)] * turns])
    for _ in range(turns + 1):
        await begin(chat)
    await until(lambda: len(model.requests) == turns + 1)
    statements = await count_statements(chat)
    conn = await asyncpg.connect(config.database_url)
    async with conn.transaction():
        await conn.execute("LOCK TABLE agent_events IN SHARE MODE")
        first.set()
        await until(lambda: bool(chat.turns.journal.writing))
        others.set()
        await until(lambda: all(run.log.pending_size for run in chat.turns.running.values()))
    await until(lambda: have_published(chat, 2))
    assert statements["append_events"] == 2
    await conn.close()


def says_at(moment: asyncio.Event) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await moment.wait()
        await exchange.text("x")
        await silent(exchange)

    return script


async def say_one(exchange: Exchange, arrived: Callable[[], int]) -> None:
    """Say a piece and wait until it has arrived."""
    before = arrived()
    await exchange.text("x")
    await until(lambda: arrived() > before)


async def test_a_piece_that_waits_for_a_flush_makes_nothing(start: Start, model: ModelServer) -> None:
    """No statement, no task and no timer: the first piece is flushed at once, the others with the turn's end."""
    chat = await start(flush_interval=DAY, idle_timeout=DAY)
    made: list[Counter[str]] = []

    async def script(exchange: Exchange) -> None:
        (run,) = chat.turns.running.values()
        await exchange.start()
        await exchange.text("x")
        await until(lambda: have_published(chat, 2))
        statements = await count_statements(chat)
        with count_work() as work:
            for _ in range(PIECES):
                await say_one(exchange, lambda: run.log.pending_size)
        made.append(statements + work)
        await exchange.stop()

    model.default = script
    assert (await chat.post("hi"))["message"]["content"] == "x" * (PIECES + 1)
    assert made == [{}]


async def read_flushes(chat: Chat, model: ModelServer, readers: int) -> Counter[str]:
    """Have a turn read that flushes each piece, and return the work that the flushes after the first one made."""
    read = [0] * readers
    made: Counter[str] = Counter()

    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await until(lambda: min(read) == 1)
        await say_one(exchange, lambda: min(read))  # which sets the clock that the others leave alone
        with count_work() as work:
            for _ in range(FLUSHES):
                await say_one(exchange, lambda: min(read))
        made.update(work)
        await exchange.stop()

    async def attach(reader: int) -> None:
        async with chat.attaching(accepted["session_id"]) as response:
            async for event in events(response):
                read[reader] = event.seq

    model.default = script
    accepted = await begin(chat)
    await asyncio.gather(*map(attach, range(readers)))
    return made


@pytest.mark.parametrize("readers", [1, 10])
async def test_the_work_of_a_flush_does_not_grow_with_its_readers(warm: Chat, model: ModelServer, readers: int) -> None:
    made = await read_flushes(warm, model, readers)
    assert made == {name: count * FLUSHES for name, count in FLUSH.items()}


async def test_an_event_is_encoded_once_for_ten_readers(
    warm: Chat, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    framed: list[int] = []
    encoded: Counter[str] = Counter()
    to_json = sse.COMPACT.encode

    def frame(turn_id: str, seq: int, data: str) -> bytes:
        framed.append(seq)
        return sse.frame(turn_id, seq, data)

    def encode(event: dict[str, Any] | str) -> str:
        encoded["text" if isinstance(event, str) else event["type"]] += 1
        return to_json(event)

    monkeypatch.setattr(turn_log, "frame", frame)
    monkeypatch.setattr(sse.COMPACT, "encode", encode)
    await read_flushes(warm, model, 10)
    texts = 1 + FLUSHES
    assert framed == list(range(1, 1 + texts + 1 + 1))
    assert encoded == ENCODED | {"text": texts}
