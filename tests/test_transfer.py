"""Export and import: what goes out comes in, once, whole, in order; what is no export does not."""

import asyncio
import json
import os
import signal
import sys
import termios
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from io import BytesIO
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chatd.audit.key import AuditKey
from chatd.errors import StartError
from chatd.repo import open_repo
from chatd.transfer.command import open_output, telling_of_patience
from chatd.transfer.exporting import count_messages, export, find_owners
from chatd.transfer.format import MAX_LINE
from chatd.transfer.importing import import_file, open_export
from tests.chat_client import Chat
from tests.conftest import NUMBERS, Start, execute
from tests.model_server import ModelServer, fails, says
from tests.test_audit import ALICE, BOB, KEY, actions, check, entries
from tests.test_recovery import sql
from tests.test_stop import one_two
from tests.token_provider import SECRET

HARD = "ünï ✓ 😀 \u2028 \\ \" ' {} \r\n\t line two"
SESSIONS = "SELECT s::text FROM (SELECT * FROM agent_sessions ORDER BY id) AS s"
MESSAGES = """
SELECT (id, session_id, role, content, content_blocks, status, model, stop_reason, token_usage, created_at)::text
FROM agent_messages ORDER BY session_id, seq
"""
FILL = """
INSERT INTO agent_sessions (id, owner, character_id, message_count)
SELECT 'sess-' || lpad(to_hex(n), 32, '0'), 'anonymous', 7, {messages} FROM generate_series(1, {sessions}) AS s (n);
INSERT INTO agent_messages (id, session_id, role, content)
SELECT 'msg-' || lpad(to_hex(s * 1000000::bigint + m), 32, '0'), 'sess-' || lpad(to_hex(s), 32, '0'), 'user',
    m || repeat(' a word', {words})
FROM generate_series(1, {sessions}) AS s, generate_series(1, {messages}) AS m;
"""
THINK = """
UPDATE agent_messages SET content_blocks =
    jsonb_build_array(jsonb_build_object('type', 'thinking', 'thinking', repeat(' a word', {words})))
"""
MORE_MEMORY = 40  # MiB, than what it takes to do nothing


class Command:
    """Runs `chatd` on a database."""

    def __init__(self, dsn: str, data_dir: Path) -> None:
        self.dsn = dsn
        settings = {"DATABASE_URL": dsn, "CHATD_AUDIT_KEY": KEY, "CHATD_DATA_DIR": str(data_dir)}
        self.environment = os.environ | settings | {"CHATD_LOG_LEVEL": "warning", "CHATD_LOG_FORMAT": "text"}

    async def start(self, *arguments: str, **pipes: Any) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "chatd", *arguments), env=self.environment, stderr=asyncio.subprocess.PIPE, **pipes
        )

    async def run(self, *arguments: str, given: bytes | None = None) -> tuple[int, bytes, str]:
        """Return the exit status, what it printed, and what it said."""
        pipe = asyncio.subprocess.PIPE
        process = await self.start(*arguments, stdin=pipe, stdout=pipe)
        out, said = await asyncio.wait_for(process.communicate(given), 120)
        assert process.returncode is not None
        assert b"Traceback" not in said
        return process.returncode, out, said.decode()

    async def export(self, *arguments: str) -> bytes:
        status, out, said = await self.run("export", *arguments)
        assert (status, said) == (0, "")
        return out

    async def load(self, export: bytes) -> str:
        status, out, said = await self.run("import", given=export)
        assert (status, said) == (0, "")
        return out.decode().strip()

    async def refuse(self, export: bytes) -> str:
        """Return what is said of a file that is wrong, which is one line."""
        with pytest.raises(StartError) as refusal:
            lines = open_export(BytesIO(export), lambda _: None)
            async with open_repo(self.dsn, 1) as repo:
                await import_file(repo, AuditKey(KEY), lines)
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    async def tables(self) -> list[list[str]]:
        """Return the sessions and messages, in order."""
        conn = await asyncpg.connect(self.dsn)
        rows = [[row[0] for row in await conn.fetch(query)] for query in (SESSIONS, MESSAGES)]
        await conn.close()
        return rows


@pytest.fixture
async def other(cluster: str, tmp_path: Path) -> AsyncIterator[Command]:
    """Yield the command on an empty database, other than the server's."""
    name = f"test_{next(NUMBERS)}"
    await execute(cluster, f"CREATE DATABASE {name} TEMPLATE template")
    yield Command(cluster.replace("/postgres?", f"/{name}?"), tmp_path)
    await execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def own(dsn: str, tmp_path: Path) -> Command:
    return Command(dsn, tmp_path)


def lines_of(export: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export.splitlines()]


def file_of(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def fill(dsn: str, sessions: int, messages: int, words: int = 1) -> None:
    await execute(dsn, FILL.format(sessions=sessions, messages=messages, words=words))


@pytest.fixture
async def chat(start: Start, model: ModelServer) -> Chat:
    """Return a server whose database has some of everything."""
    chat = await start(auth="jwt", jwt_secret=SECRET, audit_key=KEY)
    model.play([says(HARD), says("two"), fails(400), one_two])
    body = chat.body(HARD, title=HARD, system_prompt="Be brief. \0")
    del body["message"], body["session_id"]
    session = (await chat.call("POST", "/agent/session", 201, json=body, headers=ALICE))["session_id"]
    for message in (HARD, "again"):
        await chat.post(message, session, headers=ALICE)
    await chat.post("fails", session, 502, headers=ALICE)
    stopped = await chat.post("stopped", status=202, headers=BOB | {"Prefer": "respond-async"})
    while not model.requests[3:]:
        await asyncio.sleep(0.01)
    await chat.call("POST", f"/agent/chat/stop/{stopped['session_id']}", headers=BOB)
    await chat.call("POST", "/agent/session", 201, json={"character_id": 9}, headers=BOB)
    await sql(chat, "UPDATE agent_messages SET content_blocks = $1 WHERE content = 'two'", [{"text": [["t"], {}]}, {}])
    return chat


async def test_what_goes_out_comes_in(chat: Chat, own: Command, other: Command) -> None:
    before = await own.tables()
    export = await own.export()
    assert await own.tables() == before
    assert await other.load(export) == "imported sessions: 3, messages: 8, there already: 0"
    assert await other.tables() == before
    assert (await other.export()).splitlines()[1:] == export.splitlines()[1:]


async def test_a_second_import_changes_nothing(chat: Chat, own: Command, other: Command) -> None:
    export = await own.export()
    await other.load(export)
    before = await other.tables()
    for command in (other, own):
        assert await command.load(export) == "imported sessions: 0, messages: 0, there already: 3"
    assert await other.tables() == await own.tables() == before


async def test_a_session_that_has_grown_is_left_as_it_is(chat: Chat, own: Command) -> None:
    export = await own.export("--owner", "alice")
    session = lines_of(export)[1]["id"]
    await chat.post("more", session, headers=ALICE)
    before = await own.tables()
    assert await own.load(export) == "imported sessions: 0, messages: 0, there already: 1"
    assert await own.tables() == before


async def test_an_imported_session_goes_on(chat: Chat, own: Command, start: Start, model: ModelServer) -> None:
    export = await own.export("--owner", "alice")
    session = lines_of(export)[1]["id"]
    await chat.call("DELETE", f"/agent/session/{session}", 204, headers=ALICE)
    assert await own.load(export) == "imported sessions: 1, messages: 6, there already: 0"
    answer = await chat.post("more", session, headers=ALICE)
    assert answer["message"]["content"] == "Hello, world."
    assert model.requests[-1].messages[-2:] == [("user", "fails"), ("user", "more")]
    history = await chat.call("GET", f"/agent/chat/history/{session}", headers=ALICE)
    assert history["message_count"] == len(history["messages"]) == 8
    await chat.call("GET", f"/agent/chat/history/{session}", 404, headers=BOB)


async def test_what_is_said_of_each(chat: Chat, own: Command) -> None:
    header, session, *messages, end = lines_of(await own.export("--owner", "alice"))
    assert (header["format"], header["version"]) == ("chatd export", 1)
    assert (session["owner"], session["title"], session["status"], session["message_count"]) == (
        *("alice", HARD, "error", 6),
    )
    assert [(m["role"], m["content"]) for m in messages] == [
        *(("system", "Be brief. \ufffd"), ("user", HARD), ("assistant", HARD)),
        *(("user", "again"), ("assistant", "two"), ("user", "fails")),
    ]
    assert messages[2]["token_usage"]["output_tokens"] == 7
    assert {m["session_id"] for m in messages} == {session["id"]}
    assert end == {"type": "end", "sessions": 1, "messages": 6}


async def test_a_running_turn_is_exported_without_its_answer(chat: Chat, own: Command, model: ModelServer) -> None:
    model.play([one_two])
    accepted = await chat.post("running", status=202, headers=ALICE | {"Prefer": "respond-async"})
    lines = lines_of(await own.export())
    (session,) = (line for line in lines if line.get("id") == accepted["session_id"])
    messages = [line["content"] for line in lines if line.get("session_id") == session["id"]]
    assert (session["status"], session["message_count"], messages) == ("error", 1, ["running"])


async def test_the_audit_tells_of_it(chat: Chat, own: Command) -> None:
    export = await own.export("--owner", "alice")
    await own.export()
    await own.load(export)
    told = actions(await entries(chat))[-6:]
    assert [entry for entry in told if entry[1] in {"all owners", "a file", "0 sessions"}] == [
        *(("export", "all owners", "begun"), ("export", "all owners", "ok")),
        *(("import", "a file", "begun"), ("import", "0 sessions", "ok")),
    ]
    assert [(action, outcome) for action, _, outcome in told[:2]] == [("export", "begun"), ("export", "ok")]
    assert "alice" not in str(told)
    assert (await check(chat.turns.repo)).findings == []


async def test_the_audit_tells_of_an_export_of_who_has_nothing(chat: Chat, own: Command) -> None:
    assert lines_of(await own.export("--owner", "nobody"))[1:] == [end(0, 0)]
    (begun, ok) = [entry for entry in actions(await entries(chat)) if entry[0] == "export"]
    assert begun == ("export", AuditKey(KEY).owner_id("nobody"), "begun")
    assert ok == ("export", AuditKey(KEY).owner_id("nobody"), "ok")


async def test_what_is_counted_for_the_bar(chat: Chat, own: Command) -> None:
    async with open_repo(own.dsn, 1) as repo:
        counted = [await count_messages(repo, await find_owners(repo, name)) for name in (None, "alice", "nobody")]
        assert counted == [8, 6, 0]
        conn = await asyncpg.connect(own.dsn)
        async with conn.transaction():
            await conn.execute("LOCK agent_sessions")
            assert await count_messages(repo, [None]) is None
        await conn.close()
        assert await count_messages(repo, [None]) == 8


async def test_two_exports_to_one_file(own: Command, tmp_path: Path) -> None:
    await fill(own.dsn, 5, 100)
    path = tmp_path / "export.jsonl"
    with pytest.raises(ZeroDivisionError), open_output(path) as fails:
        fails.write(b"half")
        with open_output(path) as other:
            fails.write(b" of it")
            other.write(await own.export())
        raise ZeroDivisionError
    assert lines_of(path.read_bytes())[-1] == end(5, 500)
    assert [p.name for p in tmp_path.glob("export*")] == ["export.jsonl"]


async def test_a_file_is_in_its_place_once_it_is_whole(chat: Chat, own: Command, tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    path.write_text("yesterday's")
    assert await own.export("--output", str(path)) == b""
    assert path.stat().st_mode & 0o777 == 0o600
    assert lines_of(path.read_bytes())[-1]["sessions"] == 3
    status, out, _ = await own.run("import", str(path))
    assert (status, out) == (0, b"imported sessions: 0, messages: 0, there already: 3\n")
    assert sorted(p.name for p in tmp_path.glob("export*")) == ["export.jsonl"]
    assert (await own.run("export", "--output", str(tmp_path)))[0] == 2
    assert (await own.run("export", "--output", str(tmp_path / "no" / "export.jsonl")))[0] == 1
    assert (await own.run("import", str(tmp_path / "none.jsonl")))[0] == 1


async def test_a_failed_export_leaves_the_last_one(own: Command, tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    path.write_text("yesterday's")
    await execute(own.dsn, "DROP TABLE agent_messages CASCADE")
    await fill_sessions_only(own.dsn)
    status, _, said = await own.run("export", "--output", str(path))
    assert (status, said.count("\n")) == (1, 1)
    assert path.read_text() == "yesterday's"
    assert sorted(p.name for p in tmp_path.glob("export*")) == ["export.jsonl"]


async def fill_sessions_only(dsn: str) -> None:
    await execute(dsn, FILL.format(sessions=1, messages=1, words=1).partition(";")[0])


async def test_through_a_pipe(own: Command, other: Command) -> None:
    await fill(own.dsn, 30, 100)
    reading, writing = os.pipe()
    exporting = await own.start("export", stdout=writing)
    importing = await other.start("import", stdin=reading, stdout=asyncio.subprocess.PIPE)
    os.close(reading)
    os.close(writing)
    out, said = await importing.communicate()
    assert ((await exporting.communicate())[1], said) == (b"", b"")
    assert out == b"imported sessions: 30, messages: 3000, there already: 0\n"
    assert (importing.returncode, exporting.returncode) == (0, 0)
    assert await other.tables() == await own.tables()


async def test_who_reads_it_has_seen_enough(own: Command) -> None:
    await fill(own.dsn, 5, 1000, 20)
    process = await own.start("export", stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert (await process.stdout.readline()).startswith(b'{"type":"header"')
    process.stdout._transport.close()  # type: ignore[attr-defined]
    assert process.stderr is not None
    assert await process.stderr.read() == b""
    assert await asyncio.wait_for(process.wait(), 20) == 1


async def test_a_bar_where_somebody_looks_on(own: Command) -> None:
    await fill(own.dsn, 3, 10)
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chatd", "export"),
        env=own.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    shown = os.read(screen, 10_000).decode()
    os.close(screen)
    assert lines_of(out)[-1] == end(3, 30)
    assert "100%|" in shown or "0%|" in shown
    assert " messages/s]" in shown


async def test_a_command_migrates_nothing(other: Command) -> None:
    """A server of the version before may run on it."""
    for undo in (
        "DELETE FROM agent_migrations WHERE name = (SELECT max(name) FROM agent_migrations)",
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
    ):
        await execute(other.dsn, undo)
        before = await value_of(other.dsn, "SELECT count(*) FROM pg_class")
        for command in (["export"], ["import"], ["audit", "verify"], ["erase", "--owner", "alice"]):
            status, out, said = await other.run(*command, given=file_of(WHOLE))
            assert (status, out, said.count("\n")) == (1, b"", 1)
            assert "migrations are pending: run `chatd migrate`" in said
        assert await value_of(other.dsn, "SELECT count(*) FROM pg_class") == before


async def test_a_reader_that_stands_still_holds_no_snapshot_for_ever(
    own: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.transfer.queries.PATIENCE", 0.3)
    await fill(own.dsn, 2, 10)
    with pytest.raises(StartError, match="has waited for a pipe"):
        async with (
            open_repo(own.dsn, 1) as repo,
            telling_of_patience(),
            aclosing(export(repo, AuditKey(KEY), [None], Counter())) as pieces,
        ):
            async for _ in pieces:
                time.sleep(0.6)  # noqa: ASYNC251  # as a write to a pipe does


async def test_a_file_that_stands_still_holds_no_locks_for_ever(
    other: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.transfer.queries.PATIENCE", 0.3)
    file = open_export(BytesIO(file_of(WHOLE)), lambda _: time.sleep(0.6))
    with pytest.raises(StartError, match="has waited for a pipe"):
        async with open_repo(other.dsn, 1) as repo, telling_of_patience():
            await import_file(repo, AuditKey(KEY), file)
    assert await other.tables() == [[], []]


async def test_two_imports_at_once(other: Command) -> None:
    conn = await asyncpg.connect(other.dsn)
    async with conn.transaction():
        await conn.execute(f"INSERT INTO agent_sessions (id, owner, character_id) VALUES ('{ONE}', 'alice', 7)")
        importing = asyncio.create_task(other.load(file_of(WHOLE)))
        async with asyncio.timeout(20):
            while not await value_of(other.dsn, "SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.02)
    await conn.close()
    assert await importing == "imported sessions: 1, messages: 0, there already: 1"


async def test_a_killed_import_is_done_again(own: Command, other: Command) -> None:
    await fill(own.dsn, 40, 200)
    export = await own.export()
    process = await other.start("import", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(export[: len(export) * 2 // 3])
    await process.stdin.drain()
    async with asyncio.timeout(20):
        while not (await other.tables())[0]:
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    sessions, messages = await other.tables()
    assert 0 < len(sessions) < 40
    assert len(messages) == 200 * len(sessions)  # each with all of its messages, or not at all
    assert (await other.load(export)).endswith(f"there already: {len(sessions)}")
    assert await other.tables() == await own.tables()


async def test_ctrl_c_while_it_waits(other: Command) -> None:
    process = await other.start("import", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(file_of([HEADER]))
    await has_begun(process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert await asyncio.wait_for(process.stderr.read(), 10) == b"chatd: interrupted\n"
    assert await process.wait() == 1


async def test_a_background_command_is_ended_where_it_waits(other: Command, tmp_path: Path) -> None:
    """Shells have their background commands ignore Ctrl-C; nobody writes into this pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    of_pytest = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = await other.start("import", str(pipe))
    finally:
        signal.signal(signal.SIGINT, of_pytest)
    await has_begun(process)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert await asyncio.wait_for(process.stderr.read(), 10) == b"chatd: interrupted\n"


async def has_begun(process: asyncio.subprocess.Process) -> None:
    """Wait until a command hears SIGTERM, and a little longer, so that it waits for what it reads."""
    status = Path(f"/proc/{process.pid}/status")
    async with asyncio.timeout(30):
        while not int(status.read_text().partition("SigCgt:")[2].split()[0], 16) >> signal.SIGTERM - 1 & 1:
            await asyncio.sleep(0.02)
    await asyncio.sleep(1)


HEADER = {"type": "header", "format": "chatd export", "version": 1, "exported_at": "2026-11-25T12:00:00.000000Z"}
ONE, TWO = f"sess-{1:032x}", f"sess-{2:032x}"
TIMES = {"created_at": "2026-11-25T12:00:00Z", "updated_at": "2026-11-25T12:00:00+01:00"}


def session(number: int, messages: int = 0, **changes: Any) -> dict[str, Any]:
    fields = {"type": "session", "id": f"sess-{number:032x}", "owner": "alice", "character_id": 7, "title": None}
    return fields | {"status": "idle", "message_count": messages} | TIMES | changes


def message(number: int, session_id: str = ONE, **changes: Any) -> dict[str, Any]:
    fields = {"type": "message", "id": f"msg-{number:032x}", "session_id": session_id, "role": "user", "content": "hi"}
    nulls = dict.fromkeys(("content_blocks", "model", "stop_reason", "token_usage"))
    return fields | nulls | {"status": "complete", "created_at": TIMES["created_at"]} | changes


def end(sessions: int, messages: int) -> dict[str, Any]:
    return {"type": "end", "sessions": sessions, "messages": messages}


WHOLE = [HEADER, session(1, 2), message(1), message(2), session(2), end(2, 2)]
CUT = "the file is cut off here: it has no end"
MISPLACED = "expected a message of the session before it, another session or the end"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], f"line 1: {CUT}"),
        ([session(1)], "line 1: an export begins with a header"),
        ([HEADER | {"version": 2}, {"type": "new"}], "line 1: the file is of version 2: it takes a newer chatd"),
        ([HEADER | {"format": "x"}], "line 1: format: Must be one of: chatd export."),
        (WHOLE[:-1], f"line 6: {CUT}"),
        (WHOLE[:3], f"line 4: {CUT}"),
        ([*WHOLE, HEADER], "line 7: there is something after the end"),
        ([*WHOLE[:-1], end(2, 3)], "line 6: the end does not count the 2 sessions and 2 messages"),
        ([HEADER, message(1)], f"line 2: {MISPLACED}"),
        ([HEADER, session(1, 1), message(1, TWO)], f"line 3: {MISPLACED}"),
        ([HEADER, HEADER], f"line 2: {MISPLACED}"),
        ([HEADER, session(1, 2), message(1), session(2)], "line 4: the session before it has the wrong number"),
        ([HEADER, session(1, 0), message(1), end(1, 1)], "line 4: the session before it has the wrong number"),
        ([HEADER, {"type": ["x"]}], "line 2: type: must be one of: header, session, message, end"),
        ([HEADER, session(1, id="sess-x")], "line 2: id: Not a valid id."),
        ([HEADER, session(1, id=f"{ONE}\n")], "line 2: id: Not a valid id."),
        ([HEADER, session(1, character_id=1.0)], "line 2: character_id: Not a valid integer."),
        ([HEADER, session(1, character_id=2**63)], "line 2: character_id: Must be greater than or equal to 1"),
        ([HEADER, session(1, owner="")], "line 2: owner: Shorter than minimum length 1."),
        ([HEADER, session(1, status="thinking")], "line 2: status: Must be one of: idle, error."),
        ([HEADER, session(1, created_at="2026-11-25T12:00:00")], "line 2: created_at: Must be a time with its offset"),
        ([HEADER, session(1, created_at="0001-01-01T00:00:00+01:00")], "line 2: created_at: Must be a time"),
        (
            [HEADER, session(1, updated_at="1969-12-31T12:00:00Z")],
            "line 2: updated_at: Must be a time with its offset, since 1971",
        ),
        ([HEADER, session(1, **{"a\nb\x1b": 1})], "line 2: a\\nb\\x1b: Unknown field."),
        ([HEADER, session(1, 1), message(1, role="admin")], "line 3: role: Must be one of: user, assistant, system."),
        ([HEADER, session(1, 1), message(1, content=None)], "line 3: content: Field may not be null."),
        (
            [HEADER, session(1, 1), message(1, content_blocks=["x"])],
            "line 3: content_blocks: Not a valid mapping type.",
        ),
        ([HEADER, session(1, 2), message(1), message(1), end(1, 2)], "line 4: a message with this id already exists"),
        (
            [HEADER, session(1, 2), message(2), message(1), session(2, 1), message(2, TWO), end(2, 3)],
            "line 6: a message",
        ),
    ],
)
async def test_a_wrong_file_is_refused_with_its_line(other: Command, lines: list[dict[str, Any]], told: str) -> None:
    assert (await other.refuse(file_of(lines))).startswith(told)
    assert await other.tables() == [[], []]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"\n", "not valid JSON in UTF-8"),
        (b"[]\n", "not a JSON object"),
        (b'{"type":"session"\n', "not valid JSON in UTF-8"),
        (b'{"type":"end","type":"session"}\n', "not valid JSON in UTF-8"),
        (b'{"type":"end","sessions":NaN,"messages":0}\n', "not valid JSON in UTF-8"),
        (b'{"type":"end\xff"}\n', "not valid JSON in UTF-8"),
        (b"[" * 100_000 + b"\n", "not valid JSON in UTF-8"),
        (b'{"type":' + b"9" * 5000 + b"}\n", "not valid JSON in UTF-8"),
        (b" " * (MAX_LINE + 10), "longer than 64 MiB"),
        (b'{"type":"end","sessions":0,"messages":0}', CUT),
        (b'{"type":"end","sess', CUT),
    ],
)
async def test_a_line_that_is_none(other: Command, line: bytes, told: str) -> None:
    said = await other.refuse(file_of([HEADER]) + line)
    assert said.startswith(f"line 2: {told}; sessions imported before it: 0")


async def test_what_postgresql_can_not_hold_is_replaced(other: Command) -> None:
    odd = {"text": "a\0b\ud800", "type": "text", "\0": [float("inf")]}
    lines = [HEADER, session(1, 1), message(1, content="a\0b\udfffc", content_blocks=[odd]), end(1, 1)]
    raw = file_of(lines).replace(b"Infinity", b"1e999")
    assert await other.load(raw) == "imported sessions: 1, messages: 1, there already: 0"
    line = lines_of(await other.export())[2]
    assert (line["content"], line["content_blocks"][0]["text"]) == ("a\ufffdb\ufffdc", "a\ufffdb\ufffd")


async def test_a_cut_file_is_told_and_what_was_whole_is_there(other: Command) -> None:
    many = [line for n in range(1, 1200) for line in (session(n, 1), message(n, f"sess-{n:032x}"))]
    status, out, said = await other.run("import", given=file_of([HEADER, *many]))
    assert (status, out) == (1, b"")
    told = "sessions imported before it: 1000; import the whole file again once it is mended"
    assert said == f"chatd: line {len(many) + 2}: {CUT}; {told}\n"
    assert await other.load(file_of([HEADER, *many, end(1199, 1199)])) == (
        "imported sessions: 199, messages: 199, there already: 1000"
    )


async def test_a_session_of_another_owner_is_refused(other: Command) -> None:
    await other.load(file_of(WHOLE))
    before = await other.tables()
    foreign = [HEADER, session(1, 1, owner="mallory"), message(9), end(1, 1)]
    assert (await other.refuse(file_of(foreign))).startswith("line 2: a session with this id already exists")
    assert await other.tables() == before


@pytest.mark.parametrize(
    ("sessions", "messages", "words", "thoughts"),
    [(1, 15_000, 600, 0), (1500, 1, 6000, 0), (1, 60, 150_000, 0), (1, 400, 1, 40_000)],
)
async def test_memory_does_not_grow_with_what_is_exported(
    own: Command, other: Command, tmp_path: Path, sessions: int, messages: int, words: int, thoughts: int
) -> None:
    await fill(own.dsn, sessions, messages, words)
    if thoughts:
        await execute(own.dsn, THINK.format(words=thoughts))
    path = tmp_path / "export.jsonl"
    few = await peak(own, "export", "--owner", "nobody")
    many = [await peak(own, "export", "--output", str(path)), await peak(other, "import", str(path))]
    assert path.stat().st_size >> 20 >= MORE_MEMORY + 20
    assert max(many) - few < MORE_MEMORY
    assert lines_of(path.read_bytes()[-200:].partition(b"\n")[2])[-1]["messages"] == sessions * messages
    assert await value_of(other.dsn, "SELECT count(*) FROM agent_messages") == sessions * messages


MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


async def peak(command: Command, *arguments: str) -> int:
    """Run a command and return the MiB of memory that it had at its peak."""
    measured = (sys.executable, "-c", MEASURE, sys.executable, "-m", "chatd", *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*measured, env=command.environment, stdout=pipe, stderr=pipe)
    out, said = await asyncio.wait_for(process.communicate(), 180)
    assert said == b""
    return int(out) >> 10


async def value_of(dsn: str, query: str) -> Any:
    conn = await asyncpg.connect(dsn)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()
