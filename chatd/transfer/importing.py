"""`chatd import`: the sessions of an export that are not there yet, each with all of its messages or not at all."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import asyncpg

from chatd.audit.key import AuditKey
from chatd.audit.writer import record_command
from chatd.connections import Connection
from chatd.errors import StartError
from chatd.models import Session
from chatd.repo import Repo
from chatd.transfer.format import MAX_LINE, SCHEMAS, WrongLine, load_line
from chatd.transfer.waiting import ended_by_ctrl_c

BATCH = 1000  # messages in a statement; sessions and messages in a transaction, and then the rest of a session
BATCH_BYTES = 4 << 20
MESSAGE_ID = re.compile(r"msg-[0-9a-f]{32}")
COLUMNS = ("session_id", *(name for name in SCHEMAS["message"].fields if name != "session_id"))

Line = tuple[str, dict[str, Any]]


class ExportFile:
    """Reads the lines of an export, a line after the other; raises WrongLine where one is wrong, or out of place."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], object]) -> None:
        self.file, self.advance = file, advance
        self.number = self.size = 0  # of the line that was read last, and its bytes
        self.counts = Counter({"sessions": 0, "messages": 0})
        if self._read()[0] != "header":
            raise WrongLine("an export begins with a header")

    def __iter__(self) -> Iterator[Line]:
        """Return an iterator over sessions, each followed by its messages: all that its line says."""
        session_id, lacking = None, 0
        while (line := self._read())[0] != "end":
            kind, values = line
            if kind == "session":
                self._check_whole(lacking)
                session_id, lacking = values["id"], values["message_count"]
            elif kind == "message" and values["session_id"] == session_id:
                lacking -= 1
            else:
                raise WrongLine("expected a message of the session before it, another session or the end")
            self.counts[f"{kind}s"] += 1
            yield line
        self._check_whole(lacking)
        self._check_end(line[1])

    def _check_whole(self, lacking: int) -> None:
        if lacking:
            raise WrongLine("the session before it has the wrong number of messages")

    def _check_end(self, end: dict[str, int]) -> None:
        if end != self.counts:
            counted = f"{self.counts['sessions']} sessions and {self.counts['messages']} messages"
            raise WrongLine(f"the end does not count the {counted} that are here")
        if self._next():
            raise WrongLine("there is something after the end")

    def _read(self) -> Line:
        line = self._next()
        if not line.endswith(b"\n"):
            raise WrongLine("the file is cut off here: it has no end")
        return load_line(line)

    def _next(self) -> bytes:
        try:
            with ended_by_ctrl_c():
                line = self.file.readline(MAX_LINE + 1)
        except OSError as error:
            raise StartError(f"the file can't be read: {error.strerror}") from error
        self.number += 1
        self.size = len(line)
        self.advance(self.size)
        if self.size > MAX_LINE:
            raise WrongLine(f"longer than {MAX_LINE >> 20} MiB")
        return line


def open_export(file: BinaryIO, advance: Callable[[int], object]) -> ExportFile:
    """Return a file's lines behind its header; `advance` is told how many bytes of it are read. Raises StartError."""
    try:
        return ExportFile(file, advance)
    except WrongLine as error:
        raise StartError(f"line 1: {error}") from None


class Import:
    """Imports lines over one connection; `counts` is what has been committed."""

    def __init__(self, repo: Repo, conn: Connection, file: ExportFile) -> None:
        self.repo, self.conn, self.file = repo, conn, file
        self.counts = Counter({"sessions": 0, "messages": 0, "there already": 0})
        self.rows: list[tuple[int, dict[str, Any]]] = []  # messages to be written, by the numbers of their lines
        self.size = 0

    async def run(self) -> None:
        """Import all; each transaction ends behind a session."""
        lines = iter(self.file)
        line = next(lines, None)
        while line is not None:
            done: Counter[str] = Counter()
            async with self.conn.transaction():
                await self.repo.allow_idling(self.conn)
                line = await self._import_some(line, lines, done)
                await self._write()
            self.counts.update(done)

    async def _import_some(self, line: Line | None, lines: Iterator[Line], done: Counter[str]) -> Line | None:
        """Import a session, and more of them until there is a batch; return the next one's line."""
        is_new = False
        taken = 0
        while line is not None and (line[0] == "message" or taken < BATCH):
            kind, values = line
            if kind == "session":
                is_new = await self._import_session(values)
                done["sessions" if is_new else "there already"] += 1
            elif is_new:
                await self._add(values)
                done["messages"] += 1
            taken += 1
            line = next(lines, None)
        return line

    async def _import_session(self, values: dict[str, Any]) -> bool:
        """Make a session; False: it is there, and stays as it is."""
        made, owner = await self.repo.import_session(self.conn, Session(**values))
        if not made and owner != values["owner"]:
            raise WrongLine("a session with this id already exists, and belongs to another owner")
        return made

    async def _add(self, values: dict[str, Any]) -> None:
        self.rows.append((self.file.number, values))
        self.size += self.file.size
        if len(self.rows) >= BATCH or self.size >= BATCH_BYTES:
            await self._write()

    async def _write(self) -> None:
        rows, self.rows, self.size = self.rows, [], 0
        try:
            columns = [[to_column(values[name]) for _, values in rows] for name in COLUMNS]
            await self.repo.import_messages(self.conn, columns)
        except asyncpg.UniqueViolationError as error:
            found = MESSAGE_ID.search(error.detail or "")
            numbers = [number for number, values in rows if found and values["id"] == found[0]]
            self.file.number = max(numbers, default=self.file.number)
            raise WrongLine("a message with this id already exists") from None


def to_column(value: Any) -> Any:
    """Return JSON as text: asyncpg takes an array of arrays for one of more dimensions."""
    return json.dumps(value) if isinstance(value, dict | list) else value


async def import_file(repo: Repo, key: AuditKey, file: ExportFile) -> Counter[str]:
    """Import an export and return how much was imported, and how many sessions were there; the audit tells of it.

    Raises StartError that names the line where something is wrong with the file.
    """
    await record_command(repo, key, "import", ["a file"], "begun")
    async with repo.connection() as conn:
        importing = Import(repo, conn, file)
        try:
            await importing.run()
        except WrongLine as error:
            done = f"sessions imported before it: {importing.counts['sessions']}"
            raise StartError(
                f"line {file.number}: {error}; {done}; import the whole file again once it is mended"
            ) from None
    await record_command(repo, key, "import", [f"{importing.counts['sessions']} sessions"], "ok")
    return importing.counts
