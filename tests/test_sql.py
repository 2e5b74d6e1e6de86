"""The SQL files: each prepares, each has its method; migrations apply once, in order, whoever starts."""

import asyncio
import inspect
import os
import signal
from collections.abc import AsyncIterator

import asyncpg
import pytest

from chatd import migrate as migrations
from chatd.audit.queries import AuditQueries
from chatd.connections import QUERIES
from chatd.database import connected
from chatd.errors import ConfigError, StartError
from chatd.migrate import migrate, pending, read_migrations, sha256
from chatd.repo import Repo, open_repo
from chatd.transfer.queries import TransferQueries
from chatd.upkeep_queries import UpkeepQueries
from tests.conftest import execute


@pytest.fixture
async def repo(dsn: str) -> AsyncIterator[Repo]:
    async with open_repo(dsn, 4) as repo:
        yield repo


@pytest.mark.parametrize("name", sorted(QUERIES))
async def test_every_query_prepares_and_says_what_it_does(repo: Repo, name: str) -> None:
    assert QUERIES[name].startswith("-- ")
    async with repo.connection() as conn:
        await conn.prepare(QUERIES[name])


def test_every_query_has_the_method_of_its_name_or_is_a_part_of_another() -> None:
    methods = {name for kind in Repo.__mro__ for name in vars(kind) if not name.startswith("_")}
    assert QUERIES.keys() - methods == {"forget_key", "lock_session", "lock_turn", "terminate_backend"}
    source = "".join(map(inspect.getsource, (Repo, UpkeepQueries, AuditQueries, TransferQueries)))
    assert all(f'"{name}"' in source for name in QUERIES)


async def test_a_commit_is_on_disk_whatever_the_database_is_set_to(dsn: str) -> None:
    alter = "EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database())"
    await execute(dsn, f"DO $$ BEGIN {alter}; END $$")
    async with open_repo(dsn, 1) as repo, repo.connection() as conn:
        assert await conn.fetchval("SHOW synchronous_commit") == "on"


@pytest.fixture
async def empty(cluster: str) -> AsyncIterator[str]:
    await execute(cluster, "CREATE DATABASE empty")
    yield cluster.replace("/postgres?", "/empty?")
    await execute(cluster, "DROP DATABASE empty WITH (FORCE)")


async def test_five_processes_migrate_at_once(empty: str) -> None:
    conns = [await asyncpg.connect(empty) for _ in range(5)]
    applied = await asyncio.gather(*(migrate(conn) for conn in conns))
    assert sorted(map(len, applied)) == [0, 0, 0, 0, len(read_migrations())]
    for conn in conns:
        await conn.close()


async def test_a_migration_that_fails_leaves_nothing(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"0001_a.sql": "CREATE TABLE a ()", "0002_b.sql": "CREATE TABLE b (); SELECT 1 / 0"}
    monkeypatch.setattr(migrations, "read_migrations", lambda: broken)
    conn = await asyncpg.connect(empty)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(conn)
    assert await conn.fetchval("SELECT to_regclass('a') IS NOT NULL AND to_regclass('b') IS NULL")
    assert await conn.fetchval("SELECT array_agg(name) FROM agent_migrations") == ["0001_a.sql"]
    broken["0002_b.sql"] = "CREATE TABLE b ()"
    assert await migrate(conn) == ["0002_b.sql"]
    await conn.close()


async def test_a_migration_waits_for_a_table_that_is_in_use(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "100ms")
    files = {"0001_a.sql": "CREATE TABLE a ()", "0002_b.sql": "ALTER TABLE a ADD COLUMN b integer"}
    monkeypatch.setattr(migrations, "read_migrations", lambda: {"0001_a.sql": files["0001_a.sql"]})
    conn, other, third = [await asyncpg.connect(empty) for _ in range(3)]
    await migrate(conn)
    monkeypatch.setattr(migrations, "read_migrations", lambda: files)
    async with other.transaction():
        await other.execute("SELECT FROM a")
        migrating = asyncio.create_task(migrate(conn))
        await asyncio.sleep(0.5)
        await asyncio.wait_for(third.execute("SELECT FROM a"), 5)  # which nothing that waits holds up
    assert await migrating == ["0002_b.sql"]
    for each in (conn, other, third):
        await each.close()


async def test_who_has_nothing_to_migrate_does_not_wait_for_who_has(
    dsn: str, empty: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(migrations, "MAX_WAIT", 1.2)
    caplog.set_level("INFO", "chatd")
    for there in (dsn, empty):
        conn, other = [await asyncpg.connect(there) for _ in range(2)]
        await other.execute("SELECT pg_advisory_lock($1)", migrations.LOCK)
        if there == dsn:
            assert await migrate(conn) == []
        else:
            with pytest.raises(StartError, match="another process has been migrating"):
                await asyncio.wait_for(migrate(conn), 5)
            assert caplog.text.count("another process is migrating the database") == 1
            await other.execute("SELECT pg_advisory_unlock($1)", migrations.LOCK)
            assert await migrate(conn)
        await conn.close()
        await other.close()


async def test_a_database_that_freezes_is_not_waited_for(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatd.database.STATEMENT_TIMEOUT", 0.5)
    backend = None
    try:
        async with asyncio.timeout(8):
            with pytest.raises(StartError, match="DATABASE_URL: the database does not answer"):
                async with connected("DATABASE_URL", dsn) as conn:
                    backend = conn.get_server_pid()
                    os.kill(backend, signal.SIGSTOP)
                    await conn.execute("SELECT 1")
    finally:
        if backend:
            os.kill(backend, signal.SIGCONT)


def test_a_changed_or_unknown_migration_is_refused() -> None:
    files = {"0001_a.sql": "one"}
    assert pending(files, {}) == ["0001_a.sql"]
    assert pending(files, {"0001_a.sql": sha256("one")}) == []
    with pytest.raises(ConfigError, match=r"0001_a\.sql was changed"):
        pending(files, {"0001_a.sql": sha256("two")})
    with pytest.raises(ConfigError, match="newer than this program"):
        pending(files, {"0002_b.sql": sha256("x")})
