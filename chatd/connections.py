"""Connections to the database, with a deadline for every wait, and the SQL files that are run on them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import asyncpg

from chatd.background import wait_for
from chatd.errors import InDoubt, StartError, Unavailable
from chatd.metrics import DatabaseMetrics

Connection = Any  # asyncpg ships no types

ACQUIRE_TIMEOUT = 2.0
STATEMENT_TIMEOUT = 5.0
CLOSE_TIMEOUT = 0.3
LISTEN_CHECK = 10.0  # seconds between two looks whether the connection that listens still works
CHANNEL = "chatd"
# What a database that is away, starting, stopping, full, frozen or overloaded makes asyncpg raise.
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresIOError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
)
# Of these, what a database says that is there, and has not done what it was asked.
REFUSED = (
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
)
# Of these, what a server says that has become a standby: its name may lead to the new primary by now.
STANDBY = asyncpg.ReadOnlySQLTransactionError
SETTINGS = {
    "application_name": "chatd",
    "synchronous_commit": "on",  # the promise: on disk before on screen
    "jit": "off",
    # Every statement goes by an index, whatever its values: planned once, and not by how small the tables are just now.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "max_parallel_workers_per_gather": "0",  # nothing is long enough, and read_history relies on a scan's order
    "lock_timeout": "4s",
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "60",  # what is between here and a database elsewhere may forget a connection that is silent
    "default_transaction_isolation": "read committed",  # an older snapshot would miss what a lock was waited for
}
QUERIES = {
    file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
    for file in (files("chatd.sql") / "queries").iterdir()
}


async def set_codecs(conn: Connection) -> None:
    await conn.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


async def keep_session(_conn: Connection) -> None:
    """Skip asyncpg's reset on release: nothing here changes a connection's session, and it costs a round trip."""


@asynccontextmanager
async def open_pool(dsn: str, size: int) -> AsyncIterator[Any]:
    """Open a pool of `size` connections; raises StartError where they can't be had."""
    pool = await create_pool(dsn, size)
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), CLOSE_TIMEOUT)
        except AWAY:  # to say goodbye takes a connection that works
            pool.terminate()


async def create_pool(dsn: str, size: int) -> Any:
    creating = asyncpg.create_pool(
        dsn,
        min_size=size,  # a new connection in the middle of things costs 10 ms
        max_size=size,
        max_inactive_connection_lifetime=0,  # nor is one closed for being idle: asyncpg would set a timer each time
        command_timeout=STATEMENT_TIMEOUT,
        timeout=ACQUIRE_TIMEOUT,
        init=set_codecs,
        reset=keep_session,
        server_settings=SETTINGS,
    )
    try:
        return await creating
    except (*AWAY, asyncpg.PostgresError) as error:
        reason = str(error).partition("\n")[0] or "no answer in time"
        raise StartError(f"the database does not give {size} connections (CHATD_DB_POOL): {reason}") from error


class Connections:
    """The database. Every method raises Unavailable where it can't be reached or does not answer in time."""

    def __init__(self, pool: Any, dsn: str, metrics: DatabaseMetrics) -> None:
        self.pool, self.dsn, self.metrics = pool, dsn, metrics
        self.waiting = 0
        metrics.waiting.set_function(lambda: self.waiting)
        metrics.connections.set_function(pool.get_size)
        metrics.in_use.set_function(lambda: pool.get_size() - pool.get_idle_size())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Yield a connection; raises Unavailable when nothing was done, InDoubt when it may have been."""
        task, backend = asyncio.current_task(), None
        cancelling = task.cancelling() if task else 0
        try:
            async with self._acquire() as conn:
                backend = conn.get_server_pid()
                try:
                    yield conn
                except AWAY as error:
                    if isinstance(error, asyncpg.InterfaceError) and not conn.is_closed():
                        raise RuntimeError("the connection is used wrongly") from error  # which no waiting mends
                    if not isinstance(error, REFUSED) or isinstance(error, STANDBY):
                        conn.terminate()  # nobody else is to get it: what it was asked for may be ended with it
                    raise
        except AWAY as error:
            if task and task.cancelling() > cancelling:  # asyncpg's own troubles while it was cancelled
                raise asyncio.CancelledError from error
            if backend is None or isinstance(error, REFUSED):
                raise Unavailable from error
            raise InDoubt(backend) from error

    @asynccontextmanager
    async def _acquire(self) -> AsyncIterator[Connection]:
        """Take a connection from the pool, and measure the wait for it."""
        begun = time.monotonic()
        self.waiting += 1
        try:
            conn = await self.pool.acquire(timeout=ACQUIRE_TIMEOUT)
        except asyncpg.PostgresError as error:  # turned away at the door: another password, a database that is renamed
            raise Unavailable from error
        finally:
            self.waiting -= 1
            self.metrics.wait.observe(time.monotonic() - begun)
        try:
            yield conn
        finally:
            await self.pool.release(conn)

    async def _all(self, query: str, *values: Any) -> list[Any]:
        async with self.connection() as conn:
            rows: list[Any] = await conn.fetch(QUERIES[query], *values)
        return rows

    async def _one(self, query: str, *values: Any) -> Any:
        async with self.connection() as conn:
            return await conn.fetchrow(QUERIES[query], *values)

    async def ping(self) -> None:
        async with self.connection() as conn:
            await conn.execute("SELECT 1")

    async def listen(self, hear: Callable[[str], None]) -> None:
        """Hear notices, over a connection of its own, until that breaks; then raise Unavailable."""
        try:
            conn = await asyncpg.connect(
                self.dsn, timeout=ACQUIRE_TIMEOUT, command_timeout=STATEMENT_TIMEOUT, server_settings=SETTINGS
            )
            try:
                broken = asyncio.Event()
                conn.add_termination_listener(lambda _: broken.set())
                await conn.add_listener(CHANNEL, lambda *notice: hear(notice[-1]))
                while True:
                    await wait_for(broken, LISTEN_CHECK)
                    await conn.execute("SELECT 1")
            finally:
                conn.terminate()
        except (*AWAY, asyncpg.PostgresError) as error:
            raise Unavailable from error
