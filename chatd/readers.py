"""Find what a client that attaches to a session is to read, and from where."""

import asyncio
import json
import re
from dataclasses import dataclass, replace
from typing import Protocol

from chatd.errors import Unavailable
from chatd.journal import Reader
from chatd.models import Turn
from chatd.repo import Repo
from chatd.sse import encode, frame
from chatd.turns import Turns

CURSOR = re.compile(r"(turn-[0-9a-f]{32})\.([0-9]{1,18})")
PAGE = 256  # events a query
POLL = 0.5  # seconds between two looks at a turn that another process runs


class Source(Protocol):
    """Where frames come from: `read` returns some, empty bytes after `wake`, or None at the end."""

    async def read(self) -> bytes | None: ...
    def wake(self) -> None: ...


class Tail:
    """A source that reads a turn's events from the database: the turn has ended, or runs elsewhere."""

    def __init__(self, repo: Repo, turn: Turn, seq: int) -> None:
        self.repo, self.turn, self.seq = repo, turn, seq
        self.woken = asyncio.Event()

    def wake(self) -> None:
        self.woken.set()

    async def read(self) -> bytes | None:
        while not self.woken.is_set():
            try:
                if frames := await self._frames():
                    return frames
                if self.turn.state != "running":
                    return None
                await self._refresh()
            except Unavailable:
                await asyncio.sleep(POLL)
        self.woken.clear()
        return b""

    async def _frames(self) -> bytes:
        rows = await self.repo.list_events(self.turn.id, self.seq, PAGE)
        self.seq = rows[-1][0] if rows else self.seq
        return b"".join(frame(self.turn.id, seq, data) for seq, data in rows)

    async def _refresh(self) -> None:
        await asyncio.sleep(POLL)
        turn = await self.repo.find_turn(self.turn.session_id, self.turn.id)
        self.turn = turn or replace(self.turn, state="failed")  # deleted with its session


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client goes on: frames to send first, then a source."""

    first: bytes
    source: Source


async def locate(repo: Repo, turns: Turns, owner: str, session_id: str, cursor: str | None) -> Place | None:
    """Return where a client with this cursor goes on, None where there is nothing (more) for it.

    Raises NotFound, Unavailable.
    """
    await repo.get_session(session_id, owner)
    latest = await repo.find_latest_turn(session_id)
    if latest is None or (cursor is None and latest.state != "running"):
        return None
    if cursor is None:
        return Place(b"", source_of(repo, turns, latest, 0))
    if (found := await find(repo, latest, cursor)) is None:
        return await reset(repo, turns, latest)
    turn, seq = found
    if turn.last_seq == seq:
        return None
    if not await is_there(repo, turns, turn, seq):
        return await reset(repo, turns, latest)
    return Place(b"", source_of(repo, turns, turn, seq))


async def find(repo: Repo, latest: Turn, cursor: str) -> tuple[Turn, int] | None:
    """Return the turn and the event that a cursor names, None where the session has no such turn."""
    match = CURSOR.fullmatch(cursor)
    if match is None:
        return None
    turn_id, seq = match[1], int(match[2])
    turn = latest if turn_id == latest.id else await repo.find_turn(latest.session_id, turn_id)
    return (turn, seq) if turn else None


async def is_there(repo: Repo, turns: Turns, turn: Turn, seq: int) -> bool:
    """Tell whether the events up to `seq` were published and the next ones can still be read."""
    if run := turns.running.get(turn.id):
        return 0 < seq <= len(run.log.frames)
    if turn.last_seq is None:
        return seq > 0 and len(await repo.list_events(turn.id, seq - 1, 1)) == 1
    next_event = await repo.list_events(turn.id, seq, 1)
    return 0 < seq < turn.last_seq and bool(next_event) and next_event[0][0] == seq + 1


def source_of(repo: Repo, turns: Turns, turn: Turn, seq: int) -> Source:
    if run := turns.running.get(turn.id):
        return Reader(run.log, seq)
    return Tail(repo, turn, seq)


async def reset(repo: Repo, turns: Turns, turn: Turn) -> Place:
    """Return a place that begins with all of the turn's text so far, then goes on to its end."""
    if run := turns.running.get(turn.id):
        seq = len(run.log.frames)
        return Place(reset_frame(turn, seq, "".join(run.log.text)), Reader(run.log, seq))
    if turn.last_seq is None or turn.outcome is None:
        text, seq = await read_text(repo, turn)
        return Place(reset_frame(turn, seq, text), Tail(repo, turn, seq))
    message = await repo.find_message(turn.session_id, turn.message_id)
    first = reset_frame(turn, turn.last_seq - 1, message.content if message else "")
    return Place(first + frame(turn.id, turn.last_seq, turn.outcome), Tail(repo, turn, turn.last_seq))


def reset_frame(turn: Turn, seq: int, text: str) -> bytes:
    return frame(turn.id, seq, encode({"type": "reset", "text": text}))


async def read_text(repo: Repo, turn: Turn) -> tuple[str, int]:
    """Return the text that a turn has published and the number of its last event."""
    text, seq = [], 0
    while rows := await repo.list_events(turn.id, seq, PAGE):
        for seq, data in rows:  # noqa: B007 - the last one is returned
            event = json.loads(data)
            if event["type"] == "reset":
                text = [event["text"]]
            elif event["type"] == "text":
                text.append(event["text"])
    return "".join(text), seq
