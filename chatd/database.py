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
from chatd.connections import AWAY
from chatd.embedded import open_postgres
from chatd.errors import ConfigError, StartError
from chatd.migrate import migrate

logger = logging.getLogger(__name__)

START_TIMEOUT = 10.0  # seconds that a database may take to come up
MIN_VERSION = 15
# Settings that no waiting mends: a wrong user, password, database, host name or parameter.
FOR_GOOD = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
    socket.gaierror,
)
MALFORMED = (
    "DATABASE_URL: can't be read as postgresql://user:password@host:port/database; "
    "in a password, / # ? @ : and % have to be percent-encoded"
)


@asynccontextmanager
async def open_database(config: Config) -> AsyncIterator[str]:
    """Yield the DSN of a migrated database; raises ConfigError where there is none."""
    if config.database_url is not None:
        await prepare(config.database_url)
        yield config.database_url
    else:
        async with open_postgres(config.data_dir / "postgres") as dsn:
            await prepare(dsn)
            yield dsn


async def prepare(dsn: str) -> None:
    """Migrate the database."""
    try:
        conn = await connect(dsn)
    except FOR_GOOD as error:
        raise ConfigError(f"DATABASE_URL: {error}") from error
    except AWAY as error:
        raise StartError(f"DATABASE_URL: the database can't be reached: {error}") from error
    except (ValueError, OverflowError):  # its words repeat a part of the URL
        raise ConfigError(MALFORMED) from None
    try:
        if (version := conn.get_server_version().major) < MIN_VERSION:
            raise ConfigError(f"DATABASE_URL: PostgreSQL {version} is too old, {MIN_VERSION} is needed")
        await migrate(conn)
    except asyncpg.PostgresError as error:
        raise StartError(f"the database can't be migrated: {error}") from error
    finally:
        await conn.close()


def tell(details: Mapping[str, Any]) -> None:
    if details["tries"] == 1:
        logger.warning("waiting %g s for the database: %s", START_TIMEOUT, details["exception"])


@backoff.on_exception(
    backoff.constant,
    AWAY,
    interval=0.5,
    max_time=START_TIMEOUT,
    jitter=None,
    giveup=lambda error: isinstance(error, FOR_GOOD),
    on_backoff=tell,
    logger=None,
)
async def connect(dsn: str) -> asyncpg.Connection:
    """Return a connection, as soon as there is a database."""
    return await asyncio.wait_for(asyncpg.connect(dsn), START_TIMEOUT)
