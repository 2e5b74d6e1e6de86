"""Find what a client that attaches to a session is to read, and from where."""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Protocol

from chatd.errors import NotFound, Unavailable
from chatd.mirrors import Mirrors
from chatd.models import Turn
from chatd.repo import Repo
from chatd.sse import encode, frame
from chatd.turn_log import Push, Reader, apply_event

CURSOR = re.compile(r"(turn-[0-9a-f]{32})\.([0-9]{1,18})")
PAGE = 256  # events a query
RETRY = 0.5  # seconds between two tries to reach the database


class Source(Protocol):
    """Where frames come from: `read` returns some, empty bytes after `wake`, or None at the end; see Reader.

    `lost` tells then that it is not the turn's end: the client is to come back.
    """

    @property
    def lost(self) -> bool: ...
    async def read(self, push: Push) -> bytes | None: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...


class Replay:
    """A source that reads the events of an ended turn from the database; they may be swept meanwhile."""

    def __init__(self, repo: Repo, turn: Turn, seq: int) -> None:
        self.repo, self.turn, self.seq = repo, turn, seq
        self.woken = asyncio.Event()
        self.lost = False

    def wake(self) -> None:
        self.woken.set()

    def close(self) -> None:
        """Do nothing: nobody counts the readers of an ended turn."""

    async def read(self, _push: Push) -> bytes | None:
        while not self.woken.is_set():
            try:
                return await self._frames()
            except Unavailable:
                await asyncio.sleep(RETRY)
        self.woken.clear()
        return b""

    async def _frames(self) -> bytes | None:
        if self.seq == self.turn.last_seq:
            return None
        rows = await self.repo.list_events(self.turn.id, self.seq, PAGE)
        if not rows or rows[0][0] != self.seq + 1:
            self.lost = True
            return None
        self.seq = rows[-1][0]
        return b"".join(frame(self.turn.id, seq, data) for seq, data in rows)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client goes on: frames to send first, then a source."""

    first: bytes
    source: Source


async def locate(repo: Repo, mirrors: Mirrors, owner: str, session_id: str, cursor: str | None) -> Place | None:
    """Return where a client with this cursor goes on, None where there is nothing (more) for it.

    Raises NotFound, Unavailable.
    """
    latest = await repo.find_latest_turn(session_id, owner)
    if latest is None or (cursor is None and latest.state != "running"):
        return None
    if cursor is None:
        return Place(b"", source_of(repo, mirrors, latest, 0))
    if (found := await find(repo, latest, cursor)) is None:
        return await reset(repo, mirrors, latest)
    turn, seq = found
    if turn.last_seq == seq:
        return None
    if seq == 0 or not await is_there(repo, turn, seq):
        return await reset(repo, mirrors, latest)
    return Place(b"", source_of(repo, mirrors, turn, seq))


async def locate_start(repo: Repo, mirrors: Mirrors, turn: Turn) -> Place:
    """Return the place before a turn's first event, or what stands for it once the events are swept."""
    if turn.state == "running" or await is_there(repo, turn, 0):
        return Place(b"", source_of(repo, mirrors, turn, 0))
    return await reset(repo, mirrors, turn)


async def find(repo: Repo, latest: Turn, cursor: str) -> tuple[Turn, int] | None:
    """Return the turn and the event that a cursor names, None where the session has no such turn."""
    match = CURSOR.fullmatch(cursor)
    if match is None:
        return None
    turn_id, seq = match[1], int(match[2])
    turn = latest if turn_id == latest.id else await repo.find_turn(latest.session_id, turn_id)
    return (turn, seq) if turn else None


async def is_there(repo: Repo, turn: Turn, seq: int) -> bool:
    """Tell whether the event `seq` of a running turn was published, or the one behind it in an ended turn is kept."""
    if turn.last_seq is None:
        return len(await repo.list_events(turn.id, seq - 1, 1)) == 1
    next_event = await repo.list_events(turn.id, seq, 1)
    return seq < turn.last_seq and bool(next_event) and next_event[0][0] == seq + 1


def source_of(repo: Repo, mirrors: Mirrors, turn: Turn, seq: int) -> Source:
    return Reader(mirrors.log_of(turn), seq) if turn.state == "running" else Replay(repo, turn, seq)


async def reset(repo: Repo, mirrors: Mirrors, turn: Turn) -> Place:
    """Return a place that begins with all of the turn's text so far, then goes on to its end."""
    if turn.last_seq is None or turn.last_event is None:
        text, seq = await read_text(repo, turn)
        return Place(reset_frame(turn, seq, text), source_of(repo, mirrors, turn, seq))
    message = await repo.find_message(turn.session_id, turn.message_id)
    if message is None and json.loads(turn.last_event)["message_id"]:
        raise NotFound  # the session was deleted just now
    first = reset_frame(turn, turn.last_seq - 1, message.content if message else "")
    return Place(first + frame(turn.id, turn.last_seq, turn.last_event), Replay(repo, turn, turn.last_seq))


def reset_frame(turn: Turn, seq: int, text: str) -> bytes:
    return frame(turn.id, seq, encode({"type": "reset", "text": text}))


async def read_text(repo: Repo, turn: Turn) -> tuple[str, int]:
    """Return the text that a turn has published and the number of its last event."""
    text: list[str] = []
    seq = 0
    while rows := await repo.list_events(turn.id, seq, PAGE):
        for seq, data in rows:  # noqa: B007 - the last one is returned
            apply_event(text, json.loads(data))
    return "".join(text), seq
