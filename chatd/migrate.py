"""Bring the database to this program's schema: plain SQL files, sorted, each in a transaction of its own."""

import hashlib
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import asyncpg
import backoff

from chatd.crash import crash_point
from chatd.errors import ConfigError, StartError
from chatd.log_events import log_event

logger = logging.getLogger(__name__)

LOCK_TIMEOUT = "500ms"  # who wants the table that a migration waits for waits behind it,
PAUSE = 2.0  # and gets it in between: while a backup reads it, say
MAX_WAIT = 300.0  # seconds that a migration tries to have its tables
LOCK_PAUSE = 0.5
LOCK = 0x63686174  # one migrating process at a time; released with the connection, however it ends

CREATE_RECORD = """
CREATE TABLE IF NOT EXISTS agent_migrations (
    name       text COLLATE "C" PRIMARY KEY,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""

IS_OWNER = """
SELECT bool_or(pg_has_role($1, relowner, 'MEMBER')) FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relname LIKE 'agent\\_%'
"""


def read_migrations() -> dict[str, str]:
    """Return the SQL of each migration by file name, oldest first."""
    found = {f.name: f.read_text(encoding="utf-8") for f in (files("chatd.sql") / "migrations").iterdir()}
    return {name: found[name] for name in sorted(found) if name.endswith(".sql")}


def pending(migrations: dict[str, str], applied: dict[str, str]) -> list[str]:
    """Return the names still to apply.

    Raises ConfigError where the database was made by other files than these.
    """
    if unknown := applied.keys() - migrations.keys():
        raise ConfigError(f"the database is newer than this program: it has {max(unknown)}")
    for name, checksum in applied.items():
        if checksum != sha256(migrations[name]):
            raise ConfigError(f"{name} was changed after it was applied to this database")
    return [name for name in migrations if name not in applied]


def sha256(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()


async def find_pending(conn: Any) -> list[str]:
    """Return the names still to apply to a database; it is only read, and may be empty."""
    rows = []
    if await conn.fetchval("SELECT to_regclass('agent_migrations') IS NOT NULL"):
        rows = await conn.fetch("SELECT name, sha256 FROM agent_migrations")
    return pending(read_migrations(), {row["name"]: row["sha256"] for row in rows})


async def migrate(conn: Any) -> list[str]:
    """Apply what is pending over an asyncpg connection and return its names; safe when several start at once.

    Where nothing is pending nothing is waited for or written: a role that owns nothing may do that.
    """
    if not await find_pending(conn):
        return []
    async with lock(conn):
        names = await find_pending(conn)
        if names:
            await conn.execute(CREATE_RECORD)
        for name in names:
            await apply(conn, name, read_migrations()[name])
        return names


async def grant(conn: Any, role: str) -> None:
    """Let a role use what has been migrated, and nothing else; safe when several start at once."""
    async with lock(conn):
        if await conn.fetchval(IS_OWNER, role):
            logger.warning("the role %s owns tables of chatd or may act as their owner: it could change them", role)
        await conn.execute("SELECT set_config('chatd.server_role', $1, false)", role)
        await conn.execute((files("chatd.sql") / "roles" / "grant.sql").read_text(encoding="utf-8"))


@asynccontextmanager
async def lock(conn: Any) -> AsyncIterator[None]:
    """Be the only one that migrates; what fails keeps the lock until its connection ends, which may not answer."""
    if not await try_lock(conn):
        raise StartError(f"another process has been migrating the database for {MAX_WAIT / 60:g} minutes: try later")
    yield
    await conn.execute("SELECT pg_advisory_unlock($1)", LOCK)


def log_wait(details: Mapping[str, Any]) -> None:
    if details["tries"] == 1:
        logger.info("another process is migrating the database: waiting for it")


@backoff.on_predicate(
    backoff.constant, interval=LOCK_PAUSE, jitter=None, max_time=lambda: MAX_WAIT, on_backoff=log_wait, logger=None
)
async def try_lock(conn: Any) -> bool:
    """Try for a while, and return whether it was had; a wait in the database would have no end."""
    return bool(await conn.fetchval("SELECT pg_try_advisory_lock($1)", LOCK))


@backoff.on_exception(
    backoff.constant,
    (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError),
    interval=PAUSE,
    jitter=None,
    max_time=MAX_WAIT,
    on_backoff=lambda _: logger.info("a table is in use: trying again"),
    logger=None,
)
async def apply(conn: Any, name: str, sql: str) -> None:
    """Apply a migration; whoever uses its tables meanwhile is held up for as long as it waits, so it waits in turns."""
    log_event(logger, logging.INFO, "database.migrating", "migrating: %(migration)s", migration=name)
    async with conn.transaction():
        await conn.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL statement_timeout = 0")
        await conn.execute(sql, timeout=math.inf)  # it takes what it takes
        crash_point("before_migration_commit")
        await conn.execute("INSERT INTO agent_migrations (name, sha256) VALUES ($1, $2)", name, sha256(sql))
