"""Logging: text for people at a terminal, JSON lines for machines."""

import asyncio
import errno
import json
import logging
import math
import sys
from datetime import UTC, datetime
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError

logger = logging.getLogger(__name__)

OUT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
TELL_AGAIN = 10.0  # seconds


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class NoRestoring(logging.Filter):
    """asyncpg logs a traceback for each try to fill its pool while the database is away; chatd says it in a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "restore the pool" not in record.msg


class NoBadRequests(logging.Filter):
    """aiohttp logs what it can't parse with a traceback, headers and all: a line without any of it will do."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
            record.msg, record.args = "a request that is no HTTP: %s", (type(record.exc_info[1]).__name__,)
            record.exc_info = record.exc_text = None
        return True


class LoopErrors:
    """The event loop's exception handler: a line now and then where no connection can be accepted, else as ever.

    asyncio reports a lack of file descriptors a thousand times a second, each time with a traceback.
    """

    def __init__(self) -> None:
        self.told = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in OUT_OF):
            loop.default_exception_handler(context)
        elif loop.time() >= self.told + TELL_AGAIN:
            self.told = loop.time()
            logger.error("no connection can be accepted: %s (raise the limit: ulimit -n, LimitNOFILE)", error.strerror)


def choose_format(given: str | None) -> str:
    return given or ("text" if sys.stderr.isatty() else "json")


def set_up_logging(level: str, style: str | None) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler()
    if choose_format(style) == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncpg").addFilter(NoRestoring())
    logging.getLogger("asyncpg.pool").addFilter(NoRestoring())
    logging.getLogger("aiohttp.server").addFilter(NoBadRequests())
    for noisy in ("httpx2", "httpcore2", "anthropic", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
