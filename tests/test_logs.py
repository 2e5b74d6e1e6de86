"""A record is a line, carries its request's id, and tells of nobody's words."""

import asyncio
import json
import logging
import math
import re
from collections.abc import AsyncIterator, Iterator
from types import MappingProxyType
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from chatd.app import create_app
from chatd.background import background
from chatd.config import Config
from chatd.failures import from_status
from chatd.log_events import log_event
from chatd.logs import (
    OWN,
    AccessLogger,
    JsonFormatter,
    Lines,
    TextFormatter,
    choose_format,
    current_request,
    describe,
    set_up_logging,
    trace,
)
from chatd.parsing import place_of
from chatd.uncaught import LoopErrors
from tests.chat_client import Chat, until
from tests.conftest import execute
from tests.model_server import ModelServer, fails, says

ODD = "a\r\n2026-01-01 INFO forged\x1b[2K\x9b31m\x85\u2028\u2029\u202e\ud800\x00"


class Kept(logging.Handler):
    """Keeps what is logged, formatted when it is logged, as a stream handler does."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(TextFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    handler = Kept()
    loggers = [logging.getLogger(name) for name in OWN]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield handler.lines
    for logger, level in zip(loggers, before, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("canary")


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("chatd", logging.INFO, "", 0, "said: %s", (message,), exc_info)


def raised(error: BaseException, behind: BaseException | None = None) -> BaseException:
    try:
        raise error from behind
    except BaseException as caught:  # noqa: BLE001 - for its traceback
        return caught


def test_a_record_is_a_line() -> None:
    text = TextFormatter().format(record(ODD))
    assert text.isprintable()
    assert "a\\r\\n2026" in text
    line = JsonFormatter().format(record(ODD))
    assert line.isprintable()
    assert json.loads(line)["message"] == f"said: {ODD}"
    assert "request_id" not in json.loads(line)


def test_fields_follow_what_the_message_does_not_say(logged: list[str]) -> None:
    fields: dict[str, Any] = {"method": "GET", "path": "/x y=z", "reason": 'a "b"', "seconds": 0.25, "remote": None}
    log_event(logging.getLogger("chatd"), logging.WARNING, "database.away", "%(method)s 100%%", **fields)
    log_event(logging.getLogger("chatd"), logging.INFO, "turn.lost", "100% lost")
    assert re.sub("^[-0-9]+ [0-9:,]+ ", "", logged[0]) == (
        'WARNING GET 100% path="/x y=z" reason="a \\"b\\"" seconds=0.25'
    )
    assert logged[1].endswith(" INFO    100% lost")


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize(
    ("message", "args"), [("%d", ("x",)), ("%s %s", ("x",)), ("x", ({"a": math.nan},)), ("%s", (Unprintable(),))]
)
def test_what_cannot_be_formatted_is_a_line_all_the_same(style: str, message: str, args: tuple[Any, ...]) -> None:
    lines = Lines(JsonFormatter() if style == "json" else TextFormatter(), to_journal=True)
    odd = logging.LogRecord("chatd.x", logging.INFO, "", 0, message, args, None)
    odd.event = "turn.lost"
    text = lines.format(odd)
    if (style, message) != ("text", "x"):
        assert text.startswith("<6>")
        assert "a line of chatd.x that can't be told: " in text
    assert text.isprintable()
    if style == "json":
        assert json.loads(text.removeprefix("<6>"))["level"] == "error"


def test_no_line_of_a_traceback_passes_for_a_record() -> None:
    error = raised(RuntimeError(f"a\n{ODD}"))
    first, *others = TextFormatter().format(record("x", error)).split("\n")
    assert first.endswith("said: x")
    assert all(line.startswith("    ") and line.isprintable() for line in others)
    assert "Traceback (most recent call last):" in others[0]
    assert json.loads(JsonFormatter().format(record("x", error)))["exception"].startswith("Traceback")


def database_error(kind: type[asyncpg.PostgresError], message: str) -> asyncpg.PostgresError:
    error = kind(message)
    error.detail = "Failing row contains (canary)."
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("canary"), "ValueError"),
        (KeyError("canary"), "KeyError"),
        (json.JSONDecodeError("canary", "canary", 0), "JSONDecodeError"),
        (asyncpg.exceptions._base.DataError("invalid input for query argument $1: 'canary'"), "DataError"),
        (database_error(asyncpg.UniqueViolationError, "canary"), "UniqueViolationError"),
        (database_error(asyncpg.InvalidTextRepresentationError, '"canary"'), "InvalidTextRepresentationError"),
        (database_error(asyncpg.UndefinedColumnError, "no column x"), "UndefinedColumnError: no column x"),
        (asyncpg.InterfaceError("connection is closed"), "InterfaceError: connection is closed"),
        (ConnectionRefusedError(111, "refused"), "ConnectionRefusedError: [Errno 111] refused"),
    ],
)
def test_an_exception_does_not_repeat_values(error: Exception, told: str) -> None:
    assert describe(error) == told
    text = trace(raised(RuntimeError("outer"), raised(error)))
    assert "canary" not in text
    assert text.endswith("RuntimeError: outer")
    assert f"{told}\n\nwhich led to:\n\n" in text


async def test_the_loops_errors_do_not_repeat_values(logged: list[str]) -> None:
    context = {"message": "Task exception was never retrieved", "exception": ValueError("canary"), "future": "canary"}
    LoopErrors()(asyncio.get_running_loop(), context)
    assert "never retrieved" in logged[0]
    assert "canary" not in logged[0]


def test_of_a_refusal_only_a_known_type_is_logged(logged: list[str]) -> None:
    class Refusal:
        status_code, type = 401, "authentication_error"

        class response:  # noqa: N801 - as the SDK has it
            headers = MappingProxyType[str, str]({})

    from_status(Refusal)
    Refusal.type = "canary"
    from_status(Refusal)
    assert logged[0].endswith("refused a request: 401 authentication_error")
    assert logged[1].rstrip().endswith("refused a request: 401")


def test_a_url_is_told_without_its_secrets() -> None:
    assert place_of("https://user:secret@host:1/path?key=secret#x") == "https://host:1/path"


@pytest.mark.parametrize(("is_terminal", "style"), [(True, "text"), (False, "json")])
def test_a_terminal_gets_text_and_a_program_json(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, style: str
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    assert choose_format(None) == style
    assert [choose_format(given) for given in ("text", "json")] == ["text", "json"]


def test_others_are_heard_from_warnings_on(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    own = {name: logging.getLogger(name).level for name in OWN}
    try:
        set_up_logging("debug", "text")
        logging.getLogger("anthropic").setLevel(logging.DEBUG)  # as ANTHROPIC_LOG=debug does
        logging.getLogger("anthropic._base_client").debug("canary")
        logging.getLogger("aiohttp.client").info("canary")
        logging.getLogger("chatd.x").debug("own words")
        logging.getLogger("asyncpg").warning("a warning")
        told = capsys.readouterr().err
    finally:
        logging.basicConfig(handlers=before[0], level=before[1], force=True)
        logging.getLogger("anthropic").setLevel(logging.NOTSET)
        for name, level in own.items():
            logging.getLogger(name).setLevel(level)
    assert "canary" not in told
    assert "own words" in told
    assert "a warning" in told


class Broken:
    async def run(self) -> None:
        raise ValueError("canary")


async def test_a_task_that_fails_is_told_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async with background(Broken().run()):
        await until(lambda: bool(caplog.messages))
    assert caplog.messages == ["background task Broken.run failed"]


@pytest.fixture
async def logging_chat(config: Config) -> AsyncIterator[Chat]:
    server = TestServer(create_app(config))
    await server.start_server(access_log_class=AccessLogger, access_log=logging.getLogger("aiohttp.access"))
    client: TestClient[web.Request, web.Application] = TestClient(server)
    yield Chat(client)
    await client.close()


async def test_a_request_is_logged_without_its_query(logging_chat: Chat, logged: list[str]) -> None:
    await logging_chat.call("GET", "/agent/sessions?ticket=canary&limit=5", headers={"X-Request-ID": "my-id"})
    await until(lambda: bool(logged))
    fields = r"bytes=\d+ seconds=\d\.\d+ remote=127\.0\.0\.1 request_id=my-id"
    assert re.search(rf" INFO    GET /agent/sessions 200 {fields}$", logged[0])
    assert "canary" not in logged[0]


@pytest.mark.parametrize(
    "path", ["/a%0d%0a2026%1b[2J", "/\xe2\x80\xa8", "/\xc2\x85x", "/%E2%80%A8%C2%85", "*", "//x/y?z=canary"]
)
async def test_no_path_breaks_a_line(logging_chat: Chat, logged: list[str], path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", logging_chat.client.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1"))
    assert (await reader.readline()).split()[1] in {b"404", b"400"}
    writer.close()
    await until(lambda: bool(logged))
    assert all(line.isprintable() and "canary" not in line for line in logged)


async def test_what_a_request_starts_carries_its_id(chat: Chat, model: ModelServer, logged: list[str]) -> None:
    model.play([fails(500, message="canary"), says("Hello")])
    await chat.post("hi", headers={"X-Request-ID": "first"})
    await chat.post("hi", headers={"X-Request-ID": "second"})
    assert current_request.get() is None
    turns = [line.partition(" request_id=")[2].split() for line in logged if "/agent" not in line]
    assert [(request_id, session[:16], turn[:13]) for request_id, session, turn in turns] == [
        (request_id, "session_id=sess-", "turn_id=turn-") for request_id in ("first", "first", "second")
    ]
    assert not any("canary" in line for line in logged)


DISK_FULL = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON agent_events EXECUTE FUNCTION fail();
"""


async def test_a_database_that_can_only_be_read_is_away_once(
    chat: Chat, config: Config, model: ModelServer, logged: list[str]
) -> None:
    def told(word: str) -> int:
        return sum(f" database {word}" in line for line in logged)

    model.default = says(*"abcdefghij", delay=0.05)
    async with chat.streaming("hi") as response:
        await response.content.readuntil(b'"text"')
        await execute(str(config.database_url), DISK_FULL)
        await until(lambda: told("away") == 1)
        await asyncio.sleep(2.5)  # others look meanwhile, and find it there
        assert (told("away"), told("back")) == (1, 0)
        await execute(str(config.database_url), "DROP TRIGGER fail ON agent_events")
        assert b'"done"' in await response.read()
    assert (told("away"), told("back")) == (1, 1)


async def test_what_has_not_begun_is_not_handed_over(chat: Chat, config: Config, logged: list[str]) -> None:
    conn = await asyncpg.connect(config.database_url)
    async with conn.transaction():
        await conn.execute("LOCK TABLE agent_turns")
        posting = asyncio.create_task(chat.post("hi"))
        await until(lambda: bool(chat.turns.running))
        await chat.turns.drain()
    await asyncio.gather(posting, return_exceptions=True)
    await conn.close()
    assert not [line for line in logged if "goes on with the next process" in line]
