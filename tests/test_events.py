"""Each event that is logged is of the vocabulary, and a real server tells it with its fields."""

import ast
import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import chatd
from chatd.embedded import SETTINGS, Postgres
from chatd.log_events import EVENTS
from chatd.turn_report import TOKENS
from tests.chat_client import Chat, until
from tests.conftest import execute
from tests.model_server import ModelServer, fails, says
from tests.otlp_receiver import Receiver
from tests.server_process import ServerProcess, serving
from tests.test_stop import silent

ROOT = Path(chatd.__file__).parent
OF_A_LINE = {"time", "level", "logger", "message", "event", "request_id", "session_id", "turn_id", "exception"}
PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def told_in_code() -> dict[str, set[str]]:
    """Return the events that chatd's modules log, and the fields that they name."""
    told: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log_event":
                name = node.args[2]
                assert isinstance(name, ast.Constant), f"{path}: an event is named where it is logged"
                told.setdefault(str(name.value), set()).update(word.arg for word in node.keywords if word.arg)
    return {name: fields - {"error"} for name, fields in told.items()}


def test_the_code_and_the_vocabulary_agree() -> None:
    told = told_in_code()
    assert told.keys() == EVENTS.keys()
    assert all(fields <= set(EVENTS[name]) for name, fields in told.items())


def test_the_documentation_lists_every_event_with_its_fields() -> None:
    text = (ROOT.parent / "docs" / "logs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z.]+\.[a-z_]+)` \|(.*)\|(.*)\|$", text, re.MULTILINE)
    assert {name: re.findall(r"`([a-z_]+)`", fields) for name, fields, _ in rows} == {
        name: list(fields) for name, fields in EVENTS.items()
    }


@dataclass
class Story:
    """What a server has logged, from start to end, and the ids of the turns that it was about."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    turns: dict[str, str] = field(default_factory=dict)

    def told(self, event: str, turn: str | None = None) -> list[dict[str, Any]]:
        lines = [line for line in self.lines if line.get("event") == event]
        return [line for line in lines if line.get("turn_id") == self.turns[turn]] if turn else lines


@pytest.fixture(scope="module")
async def story(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """Have everything happen to a server that is logged as an event."""
    directory, model, story = tmp_path_factory.mktemp("story"), ModelServer(), Story()
    receiver = Receiver()
    receiver.status = 503
    await receiver.start()
    await model.start()
    postgres = Postgres(directory, directory)
    await postgres.start(SETTINGS)
    server = ServerProcess(
        DATABASE_URL=postgres.dsn(),
        CHATD_DATA_DIR=str(directory / "data"),
        ANTHROPIC_BASE_URL=model.url,
        CHATD_LOG_FORMAT="json",
        CHATD_RETRY_FACTOR="0.1",
        CHATD_DRAIN_TIMEOUT="0.2",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_BSP_SCHEDULE_DELAY="20",
    )
    try:
        async with serving(server) as chat:
            await fail_and_answer(chat, model, postgres, story)
            await until(lambda: "traces.away" in server.log)
            receiver.status = 200
            await lose_the_database(postgres, server)
            model.default = says("Yes.")
            await chat.post("hi")
            await until(lambda: "traces.back" in server.log)
            await begin(chat, model, story, "left")
        model.default = says("An end.")
        ended = f'"event": "turn.ended".*"{story.turns["left"]}"'
        async with serving(server):
            await until(lambda: re.search(ended, server.log) is not None, 30)
    finally:
        await model.stop()
        await postgres.stop()
        await receiver.stop()
    story.lines += map(json.loads, server.log.splitlines())
    yield story


async def fail_and_answer(chat: Chat, model: ModelServer, postgres: Postgres, story: Story) -> None:
    async def post(name: str, status: int = 200) -> None:
        answer = await chat.post("hi", status=status, headers={"X-Request-ID": f"of-{name}"})
        story.turns[name] = answer["turn_id"]

    model.play([fails(500), fails(529), says("Hello, ", "world.", delay=0.05)])
    await post("answered")
    model.default = fails(401, "authentication_error")
    await post("refused", 502)
    port = int(model.url.rpartition(":")[2])
    await model.stop()
    await post("unreachable", 502)
    await model.start(port)
    await begin(chat, model, story, "stopped")
    await chat.call("POST", f"/agent/chat/stop/{story.turns.pop('session')}")
    await begin(chat, model, story, "lost")
    await execute(postgres.dsn(), "UPDATE agent_turns SET epoch = epoch + 1 WHERE state = 'running'")
    await chat.call("POST", f"/agent/chat/stop/{story.turns.pop('session')}")
    await execute(postgres.dsn(), "ALTER TABLE agent_sessions ADD CHECK (title <> 'no')")
    await chat.session(500, title="no")
    await execute(postgres.dsn(), "ALTER TABLE agent_messages ADD CHECK (content <> 'no')")
    model.default = says("no")
    story.turns["failed"] = (await chat.post("hi", status=202, headers={"Prefer": "respond-async"}))["turn_id"]


async def begin(chat: Chat, model: ModelServer, story: Story, name: str) -> None:
    """Begin a turn that goes on for ever."""
    asked = len(model.requests)
    model.default = silent
    begun = await chat.post("hi", status=202, headers={"Prefer": "respond-async"})
    story.turns[name], story.turns["session"] = begun["turn_id"], begun["session_id"]
    await until(lambda: len(model.requests) > asked)


async def lose_the_database(postgres: Postgres, server: ServerProcess) -> None:
    await until(lambda: "turn.failed" in server.log)
    assert postgres.process is not None
    postgres.process.kill()
    await postgres.process.wait()
    await until(lambda: "database.away" in server.log)
    await postgres.start(SETTINGS)
    await until(lambda: "database.back" in server.log, 20)


@pytest.mark.parametrize("event", EVENTS)
def test_each_event_has_its_fields(story: Story, event: str) -> None:
    lines = story.told(event)
    assert lines
    for line in lines:
        assert tuple(key for key in line if key not in OF_A_LINE) == EVENTS[event]
        if event.startswith("turn."):
            assert (line["turn_id"][:5], line["session_id"][:5]) == ("turn-", "sess-")


def test_a_turn_has_one_line_at_its_end(story: Story) -> None:
    (line,) = story.told("turn.ended", "answered")
    assert 0.6 <= line["waited_seconds"] <= line["first_content_seconds"] < line["seconds"] < 60
    told = {key: line[key] for key in EVENTS["turn.ended"] if not key.endswith("seconds")}
    assert told == {
        "outcome": "done",
        "code": None,
        "attempts": 3,
        "recoveries": 0,
        "model": "test-model",
        "characters": 13,
        "events": line["events"],
        "input_tokens": 11,
        "output_tokens": 7,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 5,
    }
    assert 5 <= line["events"] <= 6  # start, two retries, one text or two, done
    assert (line["level"], line["message"], line["request_id"]) == ("info", "turn ended: done", "of-answered")
    retries = [
        (line["attempt"], line["delay_seconds"], line["reason"]) for line in story.told("turn.retry", "answered")
    ]
    assert retries == [(2, 0.2, "upstream_unavailable"), (3, 0.4, "upstream_overloaded")]


@pytest.mark.parametrize(
    ("name", "outcome", "code", "attempts"),
    [
        ("refused", "failed", "upstream_refused", 1),
        ("unreachable", "failed", "upstream_unreachable", 3),
        ("stopped", "stopped", None, 1),
        ("left", "done", None, 1),
    ],
)
def test_how_turns_end(story: Story, name: str, outcome: str, code: str | None, attempts: int) -> None:
    (line,) = story.told("turn.ended", name)
    assert (line["outcome"], line["code"], line["attempts"]) == (outcome, code, attempts)
    assert line["level"] == ("warning" if code else "info")
    assert line["recoveries"] == (1 if name == "left" else 0)
    if outcome != "done":
        assert line["events"] == 1 + attempts
        assert [line[key] for key in ("first_content_seconds", *TOKENS)] == 5 * [None]


def test_what_becomes_of_a_turn_elsewhere(story: Story) -> None:
    told = [line["event"] for line in story.lines if line.get("turn_id") == story.turns["left"]]
    assert told == ["http.request", "turn.handed_over", "turn.recovered", "turn.ended"]
    told = [line["event"] for line in story.lines if line.get("turn_id") == story.turns["lost"]]
    assert told == ["http.request", "turn.lost", "turn.ended"]
    (failed, *_) = story.told("turn.failed", "failed")
    assert "CheckViolationError" in failed["exception"]


def test_a_request_carries_the_ids_of_the_turn_that_it_begins(story: Story) -> None:
    (line,) = story.told("http.request", "answered")
    told = [line[key] for key in ("request_id", "method", "path", "status")]
    assert told == ["of-answered", "POST", "/agent/chat", 200]
    assert line["remote"] == "127.0.0.1"
    assert line["bytes"] > 300
    assert line["seconds"] > 0.6


def test_every_line_is_json_with_what_all_have(story: Story) -> None:
    for line in story.lines:
        assert list(line)[:4] == ["time", "level", "logger", "message"]
        assert "\n" not in line["message"]


class Journal:
    """A stream such as systemd connects standard error to, and what the environment says of it."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(10)
        status = os.fstat(self.theirs.fileno())
        self.environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    async def run(self, *command: str, **environment: str) -> list[str]:
        """Run a command of Python's to its end and return the lines that it wrote."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command), stderr=self.theirs.fileno(), env=os.environ | self.environment | environment
        )
        async with asyncio.timeout(60):
            await process.wait()
        self.theirs.close()
        return b"".join(iter(lambda: self.ours.recv(1 << 16), b"")).decode().splitlines()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal()
    yield journal
    journal.close()


async def test_each_line_in_the_journal_has_its_priority(journal: Journal, dsn: str, tmp_path: Path) -> None:
    lines = await journal.run("-m", "chatd", "migrate", DATABASE_URL=dsn, CHATD_DATA_DIR=str(tmp_path))
    assert [json.loads(line.removeprefix("<6>"))["message"] for line in lines] == ["the database is up to date"]


async def test_why_it_does_not_start_is_an_error_in_the_journal(journal: Journal) -> None:
    lines = await journal.run("-m", "chatd", "serve", CHATD_PORT="x", CHATD_DB_POOL="0")
    assert lines == ["<3>chatd: CHATD_PORT: must be a number", "<3>chatd: CHATD_DB_POOL: must be between 1 and 1000"]


async def test_another_stream_than_the_journal_has_no_priorities(journal: Journal) -> None:
    journal.environment = {"JOURNAL_STREAM": "1:2"}
    assert await journal.run("-m", "chatd", "serve", CHATD_PORT="x") == ["chatd: CHATD_PORT: must be a number"]


UNCAUGHT = """
import asyncio, logging, threading, warnings
from chatd.logs import set_up_logging
from chatd.uncaught import LoopErrors, log_uncaught

class Broken:
    def __del__(self):
        raise RuntimeError("in del")

async def fail():
    raise ValueError("canary")

async def main():
    asyncio.get_running_loop().set_exception_handler(LoopErrors())
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task

set_up_logging("info", {style!r}, to_journal=True)
log_uncaught()
logging.getLogger("chatd.x").debug("not told")
warnings.warn("two\\nlines", UserWarning)
Broken()
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
asyncio.run(main())
raise KeyError("canary")
"""
TOLD = [
    ("warning", "UserWarning: two\nlines", None),
    ("error", "an unraisable exception", "RuntimeError: in del"),
    ("error", "a thread ended", "ZeroDivisionError"),
    ("error", "the event loop: Task exception was never retrieved", "ValueError"),
    ("critical", "ended by an unexpected exception", "KeyError"),
]


async def test_what_nobody_catches_is_a_line_of_json(journal: Journal) -> None:
    lines = await journal.run("-c", UNCAUGHT.format(style="json"))
    told = [(line[:3], json.loads(line[3:])) for line in lines]
    for (prefix, line), (level, message, last) in zip(told, TOLD, strict=True):
        assert (prefix, line["level"]) == (f"<{PRIORITY[level]}>", level)
        assert line["message"].endswith(message)
        assert line.get("exception", "").splitlines()[-1:] == [last] * (last is not None)
        assert "canary" not in str(line)


async def test_every_line_of_a_traceback_has_its_priority(journal: Journal) -> None:
    lines = await journal.run("-c", UNCAUGHT.format(style="text"))
    assert all(re.match(r"<[2-4]>(\d{4}-|    )", line) for line in lines)
    assert lines[0].endswith(r"UserWarning: two\nlines")
    last = [line for line in lines if line.startswith("<2>")]
    assert last[0].endswith(" CRITICAL ended by an unexpected exception")
    assert last[-1] == "<2>    KeyError"
    assert len(last) >= 4
