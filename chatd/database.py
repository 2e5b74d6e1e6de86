"""The database that the settings name, or the embedded one, up and migrated."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import backoff

from chatd.config import Config
from chatd.embedded import open_postgres
from chatd.errors import ConfigError
from chatd.migrate import migrate
from chatd.repo import AWAY

logger = logging.getLogger(__name__)

START_TIMEOUT = 10.0  # seconds that a database may take to come up
MIN_VERSION = 15
FOR_GOOD = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)


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
        raise ConfigError(f"DATABASE_URL: the database can't be reached: {error}") from error
    try:
        if (version := conn.get_server_version().major) < MIN_VERSION:
            raise ConfigError(f"DATABASE_URL: PostgreSQL {version} is too old, {MIN_VERSION} is needed")
        await migrate(conn)
    finally:
        await conn.close()


@backoff.on_exception(backoff.constant, AWAY, interval=0.5, max_time=START_TIMEOUT, jitter=None, logger=logger)
async def connect(dsn: str) -> asyncpg.Connection:
    """Return a connection, as soon as there is a database."""
    return await asyncio.wait_for(asyncpg.connect(dsn), START_TIMEOUT)
