"""Real parts: a PostgreSQL of the session's own, a database for each test, a model server, chatd on a real socket."""

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from chatd.app import create_app
from chatd.config import Config
from chatd.embedded import SETTINGS, Postgres, open_postgres
from chatd.migrate import migrate
from tests.chat_client import Chat
from tests.model_server import ModelServer

NUMBERS = itertools.count()
FAST = ("fsync=off", "max_connections=300")
SETTINGS_OF_CHATD = (
    *("CHATD_", "ANTHROPIC_", "OTEL_", "DATABASE_URL", "PG"),
    *("CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_"),
)


def forget_settings() -> None:
    """Have no test, and no process that one starts, meet the database or the key of whoever runs the tests."""
    for name in [*os.environ]:
        if name.startswith(SETTINGS_OF_CHATD) and name != "CHATD_REQUIRE_ALL":
            del os.environ[name]


forget_settings()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--examples", type=int, default=10, help="requests that schemathesis makes up for each route")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is said to be there (.ci/run does), a test that is skipped for want of something has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CHATD_REQUIRE_ALL"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Yield the DSN of a PostgreSQL whose database `template` is migrated."""
    async with open_postgres(tmp_path_factory.mktemp("postgres"), FAST) as dsn:
        await execute(dsn, "CREATE DATABASE template")
        conn = await asyncpg.connect(dsn.replace("/postgres?", "/template?"))
        await migrate(conn)
        await conn.close()
        yield dsn


async def execute(dsn: str, sql: str) -> None:
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute(sql)
    finally:
        await conn.close()


@pytest.fixture
async def dsn(cluster: str) -> AsyncIterator[str]:
    """Yield the DSN of a migrated database of the test's own."""
    name = f"test_{next(NUMBERS)}"
    await execute(cluster, f"CREATE DATABASE {name} TEMPLATE template")
    yield cluster.replace("/postgres?", f"/{name}?")
    await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    server = ModelServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def config(dsn: str, model: ModelServer, tmp_path: Path) -> Config:
    return Config(
        database_url=dsn,
        data_dir=tmp_path,
        api_key="sk-canary-key",
        base_url=model.url,
        model="test-model",
        retry_factor=0.01,
        drain_timeout=0.2,
    )


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    """Yield a PostgreSQL that can be stopped and started again."""
    postgres = Postgres(tmp_path, tmp_path)
    await postgres.start(SETTINGS)
    conn = await asyncpg.connect(postgres.dsn())
    await migrate(conn)
    await conn.close()
    yield postgres
    await postgres.stop()


Start = Callable[..., Awaitable[Chat]]


@pytest.fixture
async def start(config: Config) -> AsyncIterator[Start]:
    """Yield a function that starts chatd, with settings changed by keyword, and returns its client."""
    clients: list[TestClient[Any, Any]] = []

    async def start(**changes: Any) -> Chat:
        server = TestServer(create_app(replace(config, **changes)))
        client: TestClient[web.Request, web.Application] = TestClient(server)
        clients.append(client)
        await server.start_server(shutdown_timeout=0.2)
        return Chat(client)

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
async def chat(start: Start) -> Chat:
    return await start()
