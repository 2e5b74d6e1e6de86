"""Logging: text for people at a terminal, JSON lines for machines.

A record is a line, whatever is in it, and tells of nobody's words: see `describe`.
"""

import json
import logging
import re
import secrets
import sys
import traceback
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime
from typing import Any, TextIO

import asyncpg
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from chatd.errors import ChatdError, ConfigError, StartError
from chatd.log_events import log_event
from chatd.models import Turn

QUERY = re.compile(r"[?&;=]|%(?:3f|26|3b|3d)", re.IGNORECASE)
WORD = re.compile(r"[\w.:/@\[\]+-]+")
IDS = ("request_id", "session_id", "turn_id")  # come last in a line
# syslog's priorities: the journal's, too.
PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
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
# The ids of the turn that it is about.
current_turn: ContextVar[dict[str, str] | None] = ContextVar("current_turn", default=None)


def new_request_id() -> str:
    """Return an id for a request that has none, which what is logged from here on carries."""
    request_id = secrets.token_hex(16)
    current_request.set(request_id)
    return request_id


def ids_of(turn: Turn) -> dict[str, Any]:
    return {"session_id": turn.session_id, "turn_id": turn.id}


def go_on_with(turn: Turn) -> None:
    """Have what is logged from here on carry the ids of a turn."""
    current_turn.set(ids_of(turn))


def context_of(turn: Turn) -> Context:
    """Return a copy of the current context, in which that is so."""
    context = copy_context()
    context.run(go_on_with, turn)
    return context


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


def details_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record carries beside its message: the event's name and fields, the ids of request and turn."""
    name = getattr(record, "event", None)
    event, fields = ({"event": name}, record.args) if name else ({}, None)
    request_id = current_request.get()
    ids = ({"request_id": request_id} if request_id else {}) | (current_turn.get() or {})
    return event | ids | (fields if isinstance(fields, dict) else {})


def show(value: Any) -> str:
    """Return a value as it stands behind `=`: in quotes where it is more than a word."""
    text = str(value)
    return text if WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """The message, then what it does not say already."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname:<7} {record.getMessage()}"
        details = {key: value for key, value in details_of(record).items() if value is not None and key != "event"}
        unsaid = [key for key in sorted(details, key=IDS.__contains__) if f"%({key})" not in str(record.msg)]
        line = escape(" ".join([line, *(f"{key}={show(details[key])}" for key in unsaid)]))
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
            **details_of(record),
        }
        if record.exc_info and record.exc_info[1]:
            line["exception"] = trace(record.exc_info[1])
        return json.dumps(line, allow_nan=False)


class Lines(logging.StreamHandler[TextIO]):
    """Writes to standard error; for the journal, each line with its priority (sd-daemon(3)).

    What can't be formatted is a line, too.
    """

    def __init__(self, formatter: logging.Formatter, *, to_journal: bool) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.to_journal = to_journal

    def format(self, record: logging.LogRecord) -> str:
        try:
            text = super().format(record)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, there is something to tell
            told = ("a line of %s that can't be told: %s", (record.name, describe(error)))
            text = super().format(logging.LogRecord(__name__, logging.ERROR, __file__, 0, *told, None))
        if not self.to_journal:
            return text
        prefix = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return prefix + text.replace("\n", f"\n{prefix}")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Let go of a line that standard error does not take: there is nowhere to say so."""


class AccessLogger(AbstractAccessLogger):
    """A line a request, without its query: tickets are in there."""

    @property
    def enabled(self) -> bool:
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        log_event(
            self.logger,
            logging.INFO,
            "http.request",
            "%(method)s %(path)s %(status)s",
            method=request.method,
            path=path_of(request),
            status=response.status,
            bytes=response.body_length,
            seconds=round(time, 4),
            remote=request.remote or None,  # of a Unix socket: nothing
        )


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
            record.msg, record.args = "not a valid HTTP request: %s", (type(record.exc_info[1]).__name__,)
            record.exc_info = record.exc_text = None
        return True


def choose_format(given: str | None) -> str:
    return given or ("text" if sys.stderr.isatty() else "json")


def set_up_logging(level: str, style: str | None, *, to_journal: bool = False) -> None:
    """Log to standard error; of others than chatd warnings at most, whatever the level."""
    formatter = JsonFormatter() if choose_format(style) == "json" else TextFormatter()
    handler = Lines(formatter, to_journal=to_journal)
    handler.addFilter(OwnWords())
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    for name in OWN:
        logging.getLogger(name).setLevel(number)
    logging.getLogger("asyncpg").addFilter(NoRestoring())
    logging.getLogger("asyncpg.pool").addFilter(NoRestoring())
    logging.getLogger("aiohttp.server").addFilter(NoBadRequests())
