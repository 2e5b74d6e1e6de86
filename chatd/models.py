"""What the database holds, as frozen records, and how ids are made."""

import hashlib
import json
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any


def new_turn(session_id: str | None) -> "Turn":
    """Return the turn that is about to begin in a session, or in a new one."""
    return Turn(
        id=new_id("turn"),
        session_id=session_id or new_id("sess"),
        user_message_id=new_id("msg"),
        message_id=new_id("msg"),
        state="running",
        attempt=1,
        epoch=1,
        recoveries=0,
        stop_requested=False,
        last_seq=None,
        last_event=None,
    )


def new_id(prefix: str) -> str:
    """Return a random id that sorts by time: `prefix-` and a UUIDv7's 32 hex digits (RFC 9562)."""
    stamp, noise = time.time_ns() // 1_000_000, secrets.randbits(74)
    value = stamp << 80 | 0x7 << 76 | (noise >> 62) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
    return f"{prefix}-{value:032x}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request speaks for, until `expires` (seconds since the epoch); `characters` None: as whichever it says."""

    owner: str
    characters: frozenset[int] | None = None
    admin: bool = False
    expires: float = math.inf


@dataclass(frozen=True, slots=True)
class Session:
    id: str
    owner: str
    character_id: int
    title: str | None
    status: str
    message_count: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    seq: int
    role: str
    content: str
    content_blocks: list[dict[str, Any]] | None
    status: str
    model: str | None
    stop_reason: str | None
    token_usage: dict[str, Any] | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class History:
    """A page of a session's messages, as JSON, and the id before which there are older ones.

    `has_place`: the message that the page was to be before or after is there.
    """

    owner: str
    status: str
    message_count: int
    has_place: bool
    before: str | None
    messages: str


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What a client asks for: an answer to a message, in a session or (None) a new one; once for each `key`.

    `begun` is told of the turn once it is committed, though the client may be gone by then.
    """

    owner: str
    session_id: str | None
    character_id: int
    message: str
    key: str | None = None
    begun: Callable[["Turn"], None] | None = None

    @property
    def fingerprint(self) -> bytes:
        """Return the SHA-256 of what the same key has to come with again."""
        return hashlib.sha256(json.dumps([self.session_id, self.character_id, self.message]).encode()).digest()


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn's row: `last_event` is the JSON of its last event, whose number is `last_seq`; None while it runs."""

    id: str
    session_id: str
    user_message_id: str
    message_id: str
    state: str
    attempt: int
    epoch: int
    recoveries: int
    stop_requested: bool
    last_seq: int | None
    last_event: str | None


def to_turn(row: Any) -> Turn:
    """Return the turn of a row of agent_turns, whose `outcome` is its last event."""
    values = dict(row)
    return Turn(last_event=values.pop("outcome"), **values)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a turn ended with: the message to save (text None: nothing to save) and the JSON of the last event.

    `tokens` are to be counted for the owner; None where they are not limited.
    """

    state: str
    text: str | None
    last_event: str
    last_seq: int
    message_status: str = "complete"
    content_blocks: list[dict[str, Any]] | None = None
    model: str | None = None
    stop_reason: str | None = None
    token_usage: dict[str, Any] | None = None
    upstream_id: str | None = None
    first_content_at: datetime | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a PostgreSQL is like, to the role that asks.

    `is_owner` of chatd's tables, `may_create` some; `missing`: the rights on them that it would need, "table: RIGHT".
    Of `max_connections` so many can be had, and `connections` are.
    """

    role: str
    is_superuser: bool
    is_owner: bool
    may_create: bool
    missing: list[str]
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    max_connections: int
    connections: int
    now: datetime
