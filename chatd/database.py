"""The database that the settings name, or the embedded one, up and migrated."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import backoff

from chatd.config import Config
from chatd.connections import AWAY, CLOSE_TIMEOUT, STATEMENT_TIMEOUT
from chatd.embedded import open_postgres
from chatd.embedded_directory import find_running
from chatd.errors import ConfigError, StartError
from chatd.log_events import log_event
from chatd.logs import describe
from chatd.migrate import find_pending, grant, migrate

logger = logging.getLogger(__name__)

# Nothing cuts the embedded one's log, and that a statement is refused is everyday traffic: a turn runs there already.
QUIET = "&log_min_messages=log"
START_TIMEOUT = 10.0  # seconds that a database may take to come up
MIN_VERSION = 15
# So that what is between here and a database elsewhere does not forget a connection on which a migration takes long.
SETTINGS = {"application_name": "chatd", "tcp_keepalives_idle": "60"}
# Settings that no waiting mends: a wrong user, password, database, right, host name or parameter.
FOR_GOOD = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ClientConfigurationError,
    socket.gaierror,
)
MALFORMED = (
    "can't be read as postgresql://user:password@host:port/database; "
    "in a password, / # ? @ : and % have to be percent-encoded"
)
NOT_MIGRATED = (
    "the database is not as this version needs it, migrations are pending: "
    "run `chatd migrate`, or start the new server, first"
)
MAY_NOT = "DATABASE_URL: its role may not migrate the database: run `chatd migrate` with CHATD_MIGRATE_URL"
ELSEWHERE = "CHATD_MIGRATE_URL: DATABASE_URL does not find what was migrated: another database, or another schema"


@asynccontextmanager
async def open_database(config: Config, *, granting: bool = False, sharing: bool = False) -> AsyncIterator[str]:
    """Yield the DSN of a migrated database; raises ConfigError where there is none.

    `granting`: where CHATD_MIGRATE_URL is set, grant the server's role what it needs, even if nothing is to migrate.
    `sharing`: use the embedded PostgreSQL of a server that runs.
    """
    async with reach_database(config, sharing=sharing) as dsn:
        await prepare(dsn, config.migrate_url, granting=granting)
        yield dsn


@asynccontextmanager
async def open_migrated(config: Config) -> AsyncIterator[str]:
    """Yield the DSN of a database that is migrated, of a server that runs, too; raises StartError where it is not."""
    async with reach_database(config, sharing=True) as dsn:
        async with connected("DATABASE_URL", dsn) as conn:
            if await find_pending(conn):
                raise StartError(NOT_MIGRATED)
        yield dsn


@asynccontextmanager
async def reach_database(config: Config, *, sharing: bool) -> AsyncIterator[str]:
    """Yield the DSN of a database, however it is; the embedded one is started where it does not run."""
    directory = config.data_dir / "postgres"
    if config.database_url:
        yield config.database_url
    elif sharing and (dsn := find_running(directory)):
        yield dsn + QUIET
    else:
        async with open_postgres(directory) as dsn:
            yield dsn + QUIET


async def prepare(dsn: str, migrate_dsn: str | None = None, *, granting: bool = False) -> None:
    """Migrate the database, by the role of `migrate_dsn` where there is one and something is to be done."""
    async with connected("DATABASE_URL", dsn) as conn:
        if migrate_dsn is None:
            await migrate(conn)
        elif granting or await find_pending(conn):
            await migrate_for(await conn.fetchval("SELECT current_user"), migrate_dsn)
            if await find_pending(conn):
                raise ConfigError(ELSEWHERE)


async def migrate_for(server_role: str, dsn: str) -> None:
    """Migrate by a role that owns everything, and let the server's role use it."""
    async with connected("CHATD_MIGRATE_URL", dsn) as conn:
        await migrate(conn)
        if await conn.fetchval("SELECT current_user <> $1", server_role):
            await grant(conn, server_role)


@asynccontextmanager
async def connected(name: str, dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection by the setting of this name; what goes wrong on it is told as ConfigError or StartError."""
    conn = await connect_by(name, dsn)
    try:
        if (version := conn.get_server_version().major) < MIN_VERSION:
            raise ConfigError(f"{name}: PostgreSQL {version} is too old, {MIN_VERSION} is needed")
        yield conn
    except asyncpg.InsufficientPrivilegeError as error:
        raise StartError(MAY_NOT if name == "DATABASE_URL" else f"{name}: {first_line(error)}") from error
    except asyncpg.PostgresError as error:
        raise StartError(f"the database can't be migrated: {describe(error)}") from error
    except AWAY as error:
        raise StartError(f"{name}: the database does not answer: {describe(error)}") from error
    finally:
        await close(conn)


async def close(conn: asyncpg.Connection) -> None:
    try:
        await asyncio.wait_for(conn.close(), CLOSE_TIMEOUT)
    except AWAY:  # to say goodbye takes a connection that works
        conn.terminate()


async def connect_by(name: str, dsn: str) -> asyncpg.Connection:
    try:
        return await connect(dsn)
    except (*AWAY, *FOR_GOOD) as error:
        if is_for_good(error):
            raise ConfigError(f"{name}: {first_line(error)}") from error
        raise StartError(f"{name}: the database can't be reached: {first_line(error) or 'no answer'}") from error
    except (ValueError, OverflowError):  # its words repeat a part of the URL
        raise ConfigError(f"{name}: {MALFORMED}") from None


def is_for_good(error: BaseException) -> bool:
    """Tell whether no waiting mends it; a name server that can't be asked may be there again later."""
    return isinstance(error, FOR_GOOD) and error.args[:1] != (socket.EAI_AGAIN,)


def first_line(error: BaseException) -> str:
    """Return an error's words without PostgreSQL's DETAIL and HINT."""
    return str(error).partition("\n")[0]


def log_wait(details: Mapping[str, Any]) -> None:
    if details["tries"] == 1:
        waiting = f"waiting {START_TIMEOUT:g} s for the database: %(reason)s"
        log_event(logger, logging.WARNING, "database.away", waiting, reason=describe(details["exception"]))


@backoff.on_exception(
    backoff.constant,
    AWAY,
    interval=0.5,
    max_time=START_TIMEOUT,
    jitter=None,
    giveup=is_for_good,
    on_backoff=log_wait,
    logger=None,
)
async def connect(dsn: str) -> asyncpg.Connection:
    """Return a connection, as soon as there is a database."""
    connecting = asyncpg.connect(dsn, command_timeout=STATEMENT_TIMEOUT, server_settings=SETTINGS)
    return await asyncio.wait_for(connecting, START_TIMEOUT)
