"""Measure what a request costs in a session of 100 messages and in one of 10,000, the context sent being the same."""

import asyncio
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable

import aiohttp
import asyncpg

from tests.chat_client import Chat
from tests.model_server import ModelServer
from tests.server_process import ServerProcess

SIZES = (100, 10_000)
ROUNDS = 100
FILL = """
WITH filled AS (
    INSERT INTO agent_messages (id, session_id, role, content)
    SELECT 'msg-' || md5($1 || series.n), $1, CASE series.n % 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        repeat('word ', 20)
    FROM generate_series(1, $2) AS series (n)
    ORDER BY series.n
)
UPDATE agent_sessions SET message_count = $2 WHERE id = $1"""


async def main() -> None:
    model = ModelServer()
    await model.start()
    with tempfile.TemporaryDirectory() as data:
        server = ServerProcess(CHATD_DATA_DIR=data, ANTHROPIC_BASE_URL=model.url, CHATD_CONTEXT_TOKENS="1000")
        async with aiohttp.ClientSession(await server.start()) as client:
            chat = Chat(client)
            sessions = {size: (await chat.session())["session_id"] for size in SIZES}
            await fill(f"postgresql://chatd@/postgres?host={data}/postgres", sessions)
            for name, call in (("POST /agent/chat", post(chat)), ("history?limit=100", history(chat))):
                print(name, await compare(call, sessions))
        await server.end(signal.SIGTERM)
    await model.stop()


async def fill(dsn: str, sessions: dict[int, str]) -> None:
    conn = await asyncpg.connect(dsn)
    for size, session in sessions.items():
        await conn.execute(FILL, session, size)
    await conn.close()


Call = Callable[[str], Awaitable[object]]


def post(chat: Chat) -> Call:
    return lambda session: chat.post("hi", session)


def history(chat: Chat) -> Call:
    return lambda session: chat.history(session, limit="100")


async def compare(call: Call, sessions: dict[int, str]) -> str:
    """Call in turns and return each size's p50."""
    took: dict[int, list[float]] = {size: [] for size in sessions}
    for _ in range(ROUNDS):
        for size, session in sessions.items():
            begun = time.perf_counter()
            await call(session)
            took[size].append((time.perf_counter() - begun) * 1000)
    return ", ".join(f"in {size} messages: p50 {statistics.median(values):.2f} ms" for size, values in took.items())


asyncio.run(main())
