"""The commands that do one thing and exit."""

import argparse
import importlib
import logging
import math
import sys

from chatd.config import Config
from chatd.database import open_database
from chatd.errors import ConfigError, Unauthorized
from chatd.installed import check_installed, check_jwt

logger = logging.getLogger(__name__)


async def migrate(config: Config, _options: argparse.Namespace) -> None:
    """Bring the database to this program's schema. Safe beside running servers, unless it is their embedded one."""
    check_installed(config, model=False)
    async with open_database(config, granting=True):
        logger.info("the database is up to date")


async def token(config: Config, options: argparse.Namespace) -> None:
    """Print a token that is signed with CHATD_JWT_SECRET (HS256), for development."""
    if config.jwt_secret is None:
        raise ConfigError("CHATD_JWT_SECRET: needed to sign tokens with (openssl rand -hex 32)")
    if not math.isfinite(options.ttl):
        raise ConfigError("--ttl: must be a number of seconds")
    check_jwt()
    tokens = importlib.import_module("chatd.tokens")
    try:
        minted = tokens.mint(config, options.sub, options.character, options.ttl, admin=options.admin)
    except Unauthorized:
        raise ConfigError("--sub, --character: a token for these would not be accepted") from None
    sys.stdout.write(f"{minted}\n")
