"""The commands that do one thing and exit."""

import argparse
import importlib
import logging
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from chatd.audit.erase import erase
from chatd.audit.key import read_audit_key
from chatd.audit.prune import prune
from chatd.audit.verify import check_audit
from chatd.config import Config
from chatd.database import open_database, open_migrated
from chatd.errors import ConfigError, StartError, Unauthorized, Unavailable
from chatd.installed import check_installed, check_jwt
from chatd.repo import Repo, open_repo

logger = logging.getLogger(__name__)


async def migrate(config: Config, _options: argparse.Namespace) -> None:
    """Bring the database to this program's schema. Safe beside running servers."""
    check_installed(config, model=False)
    async with open_database(config, granting=True, sharing=True):
        logger.info("the database is up to date")


async def token(config: Config, options: argparse.Namespace) -> None:
    """Print a token that is signed with CHATD_JWT_SECRET (HS256), for development."""
    if config.jwt_secret is None:
        raise ConfigError("CHATD_JWT_SECRET: needed to sign tokens with (openssl rand -hex 32)")
    if not 0 < options.ttl < math.inf:
        raise ConfigError("--ttl: must be a number of seconds above 0")
    check_jwt()
    tokens = importlib.import_module("chatd.tokens")
    try:
        minted = tokens.mint(config, options.sub, options.character, options.ttl, admin=options.admin)
    except Unauthorized:
        raise ConfigError("--sub, --character: a token for these would not be accepted") from None
    sys.stdout.write(f"{minted}\n")


@asynccontextmanager
async def open_for_command(config: Config, url: str | None = None) -> AsyncIterator[Repo]:
    """Open the database, by another URL where one is given; raises StartError where it does not do what it is asked.

    It may be that of a server of another version, so it is not migrated.
    """
    check_installed(config, model=False)
    try:
        async with open_migrated(config) as dsn, open_repo(url or dsn, 1) as repo:
            yield repo
    except Unavailable as error:
        raise StartError("the database is away, or does not answer in time: try again") from error
    except asyncpg.PostgresError as error:
        raise StartError(f"the database refuses: {error.args[0]}") from error


async def verify_audit(config: Config, _options: argparse.Namespace) -> None:
    """Check the audit: fails, and tells where, if an entry was changed, taken out or put in."""
    key = read_audit_key(config)
    async with open_for_command(config) as repo:
        check = await check_audit(repo, key)
    if check.findings:
        raise StartError(f"the audit is not as it was written: {'; '.join(check.findings)}")
    sys.stdout.write(f"audit: {check.count} entries as they were written, the last is {check.seq} {check.mac.hex()}\n")


async def prune_audit(config: Config, options: argparse.Namespace) -> None:
    """Delete the audit's entries from before a date, as the owner of its table: nobody else may."""
    key = read_audit_key(config)
    async with open_for_command(config, config.migrate_url) as repo:
        try:
            deleted, findings = await prune(repo, key, options.before)
        except asyncpg.InsufficientPrivilegeError as error:
            raise StartError(f"CHATD_MIGRATE_URL: has to be the role that owns the tables: {error.args[0]}") from error
    sys.stdout.write(f"audit: {deleted} entries deleted\n")
    if findings:
        logger.warning("the audit was not as it was written: %s", "; ".join(findings))


async def erase_owner(config: Config, options: argparse.Namespace) -> None:
    """Delete all that the database holds of an owner: sessions with their messages, idempotency keys, the name.

    The audit keeps an id. See to it first that there are no tokens for the owner any more.
    """
    key = read_audit_key(config)
    async with open_for_command(config) as repo:
        erased = await erase(repo, key, options.owner)
    sys.stdout.write(f"erased {', '.join(f'{what}: {count}' for what, count in erased.items())}\n")
