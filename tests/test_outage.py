"""PostgreSQL goes away in the middle of everything, and comes back."""

import asyncio
import os
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from chatd.config import Config
from chatd.embedded import SETTINGS, Postgres, open_postgres
from chatd.journal import MAX_TURN_PENDING
from tests.chat_client import Chat
from tests.conftest import Start, execute
from tests.model_server import Exchange, ModelServer, says
from tests.sse_client import Event, events, text_of
from tests.test_metrics import read, scrape
from tests.token_provider import SECRET, Provider, bearer, token

TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guest'"
CLOSE, OPEN = (f"ALTER DATABASE {{0}} ALLOW_CONNECTIONS {whether}" for whether in ("false", "true"))


async def test_a_stream_pauses_while_the_database_is_away_and_completes(
    start: Start, postgres: Postgres, model: ModelServer
) -> None:
    chat = await start(database_url=postgres.dsn(), heartbeat=0.2)
    pieces = [f"{n} " for n in range(100)]
    model.default = says(*pieces, delay=0.01)
    session = (await chat.session())["session_id"]
    received: list[Event] = []
    async with chat.streaming("hi", session) as response:
        async for event in events(response):
            received.append(event)
            if len(received) == 10:
                await postgres.stop()
                await check_unavailable(chat, session)
                await asyncio.sleep(1)
                await postgres.start(SETTINGS)

    assert text_of(received) == "".join(pieces)
    assert [event.seq for event in received] == list(range(1, len(received) + 1))
    history = await chat.history(session)
    assert [m["content"] for m in history["messages"]] == ["hi", "".join(pieces)]
    assert (await chat.call("GET", "/readyz"))["checks"]["database"] == "ok"


async def check_unavailable(chat: Chat, session: str) -> None:
    """Everything that needs the database says 503 and has done nothing; what needs none works."""
    async with chat.client.post("/agent/chat", json=chat.body("meanwhile")) as response:
        assert response.headers["Retry-After"]
        assert (await response.json(content_type=None))["code"] == "unavailable"
        assert response.status == 503
    await chat.history(session, status=503)
    await chat.call("GET", "/agent/sessions", 503)
    async with chat.client.get("/readyz") as response:
        assert response.status == 503
        assert (await response.json())["checks"]["database"] == "unavailable"
    await chat.call("GET", "/healthz")


@pytest.mark.parametrize(
    ("away", "back"),
    [
        (["ALTER ROLE guest NOLOGIN", TERMINATE], ["ALTER ROLE guest LOGIN"]),
        ([CLOSE, TERMINATE], [OPEN]),
        ([CLOSE, TERMINATE, "ALTER DATABASE {0} RENAME TO gone"], ["ALTER DATABASE gone RENAME TO {0}", OPEN]),
    ],
)
async def test_a_database_that_turns_everybody_away_is_away(
    start: Start, cluster: str, dsn: str, model: ModelServer, away: list[str], back: list[str]
) -> None:
    name = urlsplit(dsn).path[1:]
    await execute(cluster, "CREATE ROLE guest LOGIN SUPERUSER")
    try:
        chat = await start(database_url=dsn.replace("//chatd@", "//guest@"))
        pieces = [f"{n} " for n in range(100)]
        model.default = says(*pieces, delay=0.01)
        session = (await chat.session())["session_id"]
        async with chat.streaming("hi", session) as response:
            coming = events(response)
            received = [await anext(coming)]
            for sql in away:
                await execute(cluster, sql.format(name))
            await check_unavailable(chat, session)
            for sql in back:
                await execute(cluster, sql.format(name))
            received += [event async for event in coming]
        assert text_of(received) == "".join(pieces)
        assert "chatd_errors_total 0.0\n" in await read(chat)
    finally:
        await execute(cluster, f"{TERMINATE}; DROP ROLE guest")


async def test_a_model_that_floods_waits_for_the_database(chat: Chat, dsn: str, model: ModelServer) -> None:
    go_on = asyncio.Event()
    pieces = [f"{n:<10000}" for n in range(300)]

    async def flood(exchange: Exchange) -> None:
        await go_on.wait()
        await says(*pieces)(exchange)

    model.default = flood
    async with chat.streaming("hi") as response:
        coming = events(response)
        received = [await anext(coming)]
        conn = await asyncpg.connect(dsn)
        async with conn.transaction():
            await conn.execute("LOCK TABLE agent_events")
            go_on.set()
            async with asyncio.timeout(30):
                while (await scrape(chat))("chatd_uncommitted_characters") <= MAX_TURN_PENDING:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # in which more would come
            # What is read at once comes on top, which is much less.
            assert (await scrape(chat))("chatd_uncommitted_characters") <= 2 * MAX_TURN_PENDING
        await conn.close()
        received += [event async for event in coming]
    assert text_of(received) == "".join(pieces)


async def test_attaching_while_the_database_is_away_waits_for_it(start: Start, postgres: Postgres) -> None:
    chat = await start(database_url=postgres.dsn(), heartbeat=0.1)
    received = await chat.stream("hi")
    session = received[0].data["session_id"]
    await postgres.stop()
    async with chat.attaching(session, received[0].id) as response, chat.attaching("sess-" + "0" * 32) as foreign:
        pings = [await response.content.readline() for _ in range(2)]
        assert pings == [b"retry: 1000\n", b": ping\n"]
        await postgres.start(SETTINGS)
        rest = [event async for event in events(response)]
        assert rest == received[1:]
        assert b"data" not in await foreign.read()


async def test_a_token_that_expires_while_the_database_is_away(
    start: Start, model: ModelServer, postgres: Postgres
) -> None:
    chat = await start(database_url=postgres.dsn(), heartbeat=5, auth="jwt", jwt_secret=SECRET)
    body, headers = chat.body("hi"), bearer(token("alice", exp=time.time() + 3))
    answer = await chat.call("POST", "/agent/chat", json=body, headers=headers)
    await postgres.stop()
    begun = time.monotonic()
    path = f"/agent/chat/stream/{answer['session_id']}"
    async with chat.client.get(path, headers=headers | {"Last-Event-ID": "nonsense"}) as response:
        assert b"data" not in await response.read()
    assert time.monotonic() - begun < 4.5
    await postgres.start(SETTINGS)


async def test_a_token_that_expires_before_it_could_be_read_for_the_first_time(
    start: Start, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither keys nor a database at first; then the keys, by which the token is known to end."""
    monkeypatch.setattr("chatd.jwks.FIRST_RETRY", 0.1)
    provider = Provider()
    provider.add("one", "ES256")
    provider.failing = True
    await provider.start()
    chat = await start(database_url=postgres.dsn(), heartbeat=5, auth="jwt", jwt_jwks_url=provider.url)
    await postgres.stop()
    headers = bearer(provider.token("one", exp=time.time() + 3)) | {"Last-Event-ID": "nonsense"}
    async with chat.client.get(f"/agent/chat/stream/sess-{'0' * 32}", headers=headers) as response:
        assert response.status == 200
        provider.failing = False
        assert b"data" not in await asyncio.wait_for(response.read(), 30)
    await postgres.start(SETTINGS)
    await provider.stop()


async def test_the_postmaster_is_killed_and_kept(tmp_path: Path) -> None:
    async with open_postgres(tmp_path) as dsn:
        pid = int((tmp_path / "pgdata" / "postmaster.pid").read_text().split()[0])
        conn = await asyncpg.connect(dsn)
        await conn.execute("CREATE TABLE kept ()")
        await conn.close()
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while True:
                try:
                    conn = await asyncpg.connect(dsn)
                    await conn.execute("SELECT * FROM kept")
                    break
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await asyncio.sleep(0.05)
        await conn.close()


async def test_a_killed_connection_is_no_failure(chat: Chat, config: Config, model: ModelServer) -> None:
    model.default = says(*"abcdefghijklmnopqrst", delay=0.03)
    assert config.database_url
    admin = await asyncpg.connect(config.database_url)
    received: list[Event] = []
    async with chat.streaming("hi") as response:
        async for event in events(response):
            received.append(event)
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
    await admin.close()
    assert text_of(received) == "abcdefghijklmnopqrst"
    assert [event.seq for event in received] == list(range(1, len(received) + 1))
