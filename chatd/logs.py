"""Logging: text for people at a terminal, JSON lines for machines.

A record is a line, whatever is in it, and tells of nobody's words: see `describe`.
"""

import asyncio
import errno
import json
import logging
import math
import re
import secrets
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import asyncpg
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from chatd.errors import ChatdError, ConfigError, StartError

logger = logging.getLogger(__name__)

QUERY = re.compile(r"[?&;=]|%(?:3f|26|3b|3d)", re.IGNORECASE)
OUT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
TELL_AGAIN = 10.0  # seconds
OWN = ("chatd", "aiohttp.access")  # the loggers that may say more than warnings
# Exceptions whose words are written by programmers, and hold no values but names, numbers and addresses.
TELLING = (
    *(ChatdError, ConfigError, StartError),
    *(OSError, RuntimeError, TypeError, AttributeError, NameError, ImportError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError),
)
# Those of them that repeat values.
REPEATING = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError)

# The request that is being served, and whose work this task goes on with: a task has the context of its creator.
current_request: ContextVar[str | None] = ContextVar("current_request", default=None)


def new_request_id() -> str:
    """Return an id for a request that has none, which what is logged from here on carries."""
    request_id = secrets.token_hex(16)
    current_request.set(request_id)
    return request_id


def describe(error: BaseException | None) -> str:
    """Return what may be logged of an exception: its kind, and its words where they can't repeat what was sent.

    DETAIL lines of PostgreSQL hold rows; errors about values hold the values.
    """
    kind = type(error).__name__
    if isinstance(error, TELLING) and not isinstance(error, REPEATING):
        words = str(error.args[0]) if isinstance(error, asyncpg.PostgresError) else str(error)
        return f"{kind}: {words}" if words else kind
    return kind


def root_of(error: BaseException) -> BaseException:
    """Return the exception that others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def trace(error: BaseException) -> str:
    """Return the tracebacks of an exception and of those behind it, each as its lines of code and `describe`."""
    parts: list[str] = []
    behind: BaseException | None = error
    while behind is not None and len(parts) < 10:
        frames = "".join(traceback.format_tb(behind.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{describe(behind)}")
        behind = behind.__cause__ or (None if behind.__suppress_context__ else behind.__context__)
    return "\n\nwhich led to:\n\n".join(reversed(parts))


def escape(text: str) -> str:
    """Return text on one line, without what a terminal would obey: controls, line separators, changes of direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname:<7} {escape(record.getMessage())}"
        if (request_id := current_request.get()) is not None:
            line += f" request_id={request_id}"
        if record.exc_info and record.exc_info[1]:
            line += "".join(f"\n    {escape(part)}" for part in trace(record.exc_info[1]).split("\n"))
        return line


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := current_request.get()) is not None:
            line["request_id"] = request_id
        if record.exc_info and record.exc_info[1]:
            line["exception"] = trace(record.exc_info[1])
        return json.dumps(line)


class AccessLogger(AbstractAccessLogger):
    """A line a request, without its query: tickets are in there."""

    @property
    def enabled(self) -> bool:
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        what = (request.remote or "-", request.method, path_of(request), response.status)
        self.logger.info('%s "%s %s" %s %s %.3fs', *what, response.body_length, time)


def path_of(request: web.BaseRequest) -> str:
    """Return the path, up to what looks like a query that has lost its question mark."""
    return QUERY.split(request.rel_url.raw_path, maxsplit=1)[0]


class OwnWords(logging.Filter):
    """Libraries tell of requests and bodies below warnings, and some set their own levels (ANTHROPIC_LOG)."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.startswith(OWN)


class NoRestoring(logging.Filter):
    """asyncpg logs a traceback for each try to fill its pool while the database is away; chatd says it in a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "restore the pool" not in record.msg


class NoBadRequests(logging.Filter):
    """aiohttp logs what it can't parse with a traceback, headers and all: a line without any of it will do."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | web.RequestPayloadError):
            record.msg, record.args = "a request that is no HTTP: %s", (type(record.exc_info[1]).__name__,)
            record.exc_info = record.exc_text = None
        return True


class LoopErrors:
    """The event loop's exception handler: what went wrong, without the values around it; a lack of files now and then.

    asyncio reports a lack of file descriptors a thousand times a second, each time with a traceback.
    """

    def __init__(self) -> None:
        self.told = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in OUT_OF):
            logger.error("the event loop: %s", context.get("message"), exc_info=error)
        elif loop.time() >= self.told + TELL_AGAIN:
            self.told = loop.time()
            logger.error("no connection can be accepted: %s (raise the limit: ulimit -n, LimitNOFILE)", error.strerror)


def choose_format(given: str | None) -> str:
    return given or ("text" if sys.stderr.isatty() else "json")


def set_up_logging(level: str, style: str | None) -> None:
    """Log to standard error; of others than chatd warnings at most, whatever the level."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if choose_format(style) == "json" else TextFormatter())
    handler.addFilter(OwnWords())
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    for name in OWN:
        logging.getLogger(name).setLevel(number)
    logging.getLogger("asyncpg").addFilter(NoRestoring())
    logging.getLogger("asyncpg.pool").addFilter(NoRestoring())
    logging.getLogger("aiohttp.server").addFilter(NoBadRequests())
