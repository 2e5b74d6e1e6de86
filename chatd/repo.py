"""The only place that queries: a method a statement, named like its file in sql/queries; the rest composes them."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import asyncpg

from chatd.audit.queries import AuditQueries
from chatd.connections import QUERIES, Connection, open_pool
from chatd.errors import CharacterForbidden, InDoubt, KeyTaken, NotFound, SlotTaken, TurnInProgress, Unavailable
from chatd.limits import NO_LIMITS, Quota, TurnLimits, longest_refusal
from chatd.metrics import Metrics
from chatd.models import Answer, History, Message, Session, Turn, TurnRequest, to_turn
from chatd.transfer.queries import TransferQueries
from chatd.upkeep_queries import UpkeepQueries


@asynccontextmanager
async def open_repo(dsn: str, pool_size: int, metrics: Metrics | None = None) -> AsyncIterator["Repo"]:
    async with open_pool(dsn, pool_size) as pool:
        yield Repo(pool, dsn, (metrics or Metrics()).database)


class Repo(AuditQueries, TransferQueries, UpkeepQueries):
    """What chatd asks of the database: here what clients' requests need, sessions, messages, turns and tickets."""

    # Sessions

    async def create_session(
        self,
        session_id: str,
        owner: str,
        character_id: int,
        title: str | None,
        message_id: str,
        prompt: str | None,
    ) -> Session:
        values = (session_id, owner, character_id, title, message_id, prompt)
        try:
            return Session(**await self._one("create_session", *values))
        except InDoubt:  # once more: either it is there, or it is made now
            with suppress(asyncpg.UniqueViolationError):
                return Session(**await self._one("create_session", *values))
            return await self.find_session(session_id, owner)

    async def find_session(self, session_id: str, owner: str, *, any_owner: bool = False) -> Session:
        """Return a session; raises NotFound where it does not exist or is another owner's, unless any will do."""
        return to_session(await self._one("find_session", session_id, owner, any_owner))

    async def rename_session(self, session_id: str, owner: str, title: str | None) -> Session:
        return to_session(await self._one("rename_session", session_id, owner, title))

    async def delete_session(self, session_id: str, owner: str) -> None:
        try:
            deleted = await self._one("delete_session", session_id, owner)
        except InDoubt:  # once more: either it is gone, or it goes now
            await self._one("delete_session", session_id, owner)
            return
        if deleted is None:
            raise NotFound

    async def list_sessions(self, owner: str, before: tuple[datetime, str] | None, limit: int) -> list[Session]:
        rows = await self._all("list_sessions", owner, *(before or (None, None)), limit)
        return [Session(**row) for row in rows]

    # Messages

    async def find_message(self, session_id: str, message_id: str) -> Message | None:
        row = await self._one("find_message", session_id, message_id)
        return row and Message(**row)

    async def read_history(
        self,
        session_id: str,
        owner: str,
        limit: int,
        before: str | None,
        after: str | None,
        *,
        any_owner: bool = False,
    ) -> History:
        """Return a page before or after a message, or the latest; raises NotFound."""
        row = await self._one("read_history", session_id, owner, before, after, limit, any_owner)
        if row is None:
            raise NotFound
        return History(**row)

    async def list_context(self, session_id: str, before: int | None, limit: int) -> list[tuple[int, str, str]]:
        """Return (seq, role, content), latest first; with the latest the system prompt, last."""
        return [tuple(row) for row in await self._all("list_context", session_id, before, limit)]

    async def set_context_start(self, session_id: str, seq: int) -> None:
        await self._one("set_context_start", session_id, seq)

    # Turns

    async def begin_turn(
        self, request: TurnRequest, turn: Turn, boot_id: uuid.UUID, start: str, limits: TurnLimits = NO_LIMITS
    ) -> list[Quota]:
        """Begin a turn in one statement, in a session that it makes where the request names none.

        Returns what its owner has left. Raises NotFound, CharacterForbidden, TurnInProgress (with the running turn's
        id), KeyTaken, RateLimited, SlotTaken (try again).
        """
        session = (turn.session_id, request.owner, request.character_id)
        values = (turn.user_message_id, request.message, turn.id, turn.message_id, boot_id, start)
        key = (request.key, request.fingerprint if request.key else None)
        is_new = request.session_id is None
        async with self.connection() as conn:
            try:
                row = await conn.fetchrow(QUERIES["begin_turn"], *session, *values, *key, is_new, *limits)
            except asyncpg.UniqueViolationError as error:
                if error.constraint_name == "agent_idempotency_keys_pkey":
                    raise KeyTaken from error
                if error.constraint_name == "agent_turns_slots":
                    raise SlotTaken from error
                raise TurnInProgress(**await self._running(conn, turn.session_id, request.owner)) from error
            if row is None:
                to_session(await conn.fetchrow(QUERIES["find_session"], turn.session_id, request.owner, False))
                raise CharacterForbidden
        quotas = limits.quotas(row["turns"], row["tokens"])
        if row["running"]:
            raise TurnInProgress(turn_id=row["running"])
        if not row["id"]:
            raise longest_refusal(quotas)
        return quotas

    async def abandon_turn(self, request: TurnRequest, turn: Turn, backend: int) -> bool:
        """Undo a begin_turn that is in doubt, its connection first: it may still be about to be done.

        False: the turn has begun and stays, since a request with the same key was told of it, or another process has
        taken it over.
        """
        if not (await self._one("terminate_backend", backend))["gone"]:
            raise Unavailable
        async with self.connection() as conn, conn.transaction():
            await conn.fetchrow(QUERIES["lock_session"], turn.session_id)
            locked = await conn.fetchrow(QUERIES["lock_turn"], turn.id)
            if locked and locked["epoch"] > turn.epoch:
                return False
            key = await conn.fetchrow(QUERIES["forget_key"], request.owner, request.key, turn.id)
            if key and key["replayed"]:
                return False
            if request.session_id is None:
                await conn.fetchrow(QUERIES["delete_session"], turn.session_id, request.owner)
            else:
                await conn.fetchrow(QUERIES["abandon_turn"], turn.id)
        return True

    async def replay_key(self, owner: str, key: str) -> tuple[bytes, str, str] | None:
        """Return the fingerprint, session and turn of a key that was used, and see to it that they stay.

        Raises NotFound where the session was deleted: there is nothing left with the key.
        """
        row = await self._one("replay_key", owner, key)
        if row and row["session_id"] is None:
            raise NotFound
        return row and tuple(row)

    async def _running(self, conn: Connection, session_id: str, owner: str) -> dict[str, Any]:
        row = await conn.fetchrow(QUERIES["find_latest_turn"], session_id, owner)
        return {"turn_id": row["id"]} if row and row["id"] else {}

    async def find_turn(self, session_id: str, turn_id: str) -> Turn | None:
        row = await self._one("find_turn", session_id, turn_id)
        return row and to_turn(row)

    async def find_latest_turn(self, session_id: str, owner: str) -> Turn | None:
        """Return the latest turn of a session, None where it has none; raises NotFound."""
        row = await self._one("find_latest_turn", session_id, owner)
        if row is None:
            raise NotFound
        return to_turn(row) if row["id"] else None

    async def record_attempt(self, turn_id: str, epoch: int, attempt: int) -> bool:
        """Say that a request is about to be sent; False: the turn is not this process's any more."""
        return await self._one("record_attempt", turn_id, epoch, attempt) is not None

    async def append_events(self, events: Sequence[tuple[str, int, int, str]]) -> int:
        """Append (turn_id, epoch, seq, JSON) and return how many were written: none, where one was there already."""
        async with self.connection() as conn:
            try:
                status = await conn.execute(QUERIES["append_events"], *columns(events))
            except asyncpg.UniqueViolationError:
                return 0
        return int(status.rpartition(" ")[2])

    async def find_events(self, events: Sequence[tuple[str, int, str]]) -> set[tuple[str, int]]:
        """Return which of these very events (turn_id, seq, JSON) are there, as (turn_id, seq)."""
        return {tuple(row) for row in await self._all("find_events", *columns(events))}

    async def list_events(self, turn_id: str, seq: int, limit: int) -> list[tuple[int, str]]:
        """Return (seq, JSON) of the events after `seq`."""
        return [tuple(row) for row in await self._all("list_events", turn_id, seq, limit)]

    async def finish_turn(self, turn: Turn, answer: Answer, events: Sequence[tuple[int, str]]) -> bool:
        """End a turn in one transaction, its last events (seq, JSON) included.

        False: it is not this process's any more, or had ended.
        """
        row = await self._one(
            "finish_turn",
            *(turn.id, turn.epoch, turn.session_id),
            *(answer.state, answer.last_event, answer.last_seq),
            *(answer.text, answer.message_status, answer.content_blocks, answer.model, answer.stop_reason),
            *(answer.token_usage, answer.upstream_id, answer.first_content_at),
            *columns(events),
            answer.tokens,
        )
        return row is not None

    async def request_stop(self, turn_id: str) -> None:
        """Ask whoever runs a turn to stop it."""
        if await self._one("request_stop", turn_id):
            await self.notify("stop", [turn_id])

    # Tickets

    async def create_ticket(
        self, ticket: bytes, session_id: str, owner: str, life: float, token_expires_at: datetime | None
    ) -> None:
        """Keep a ticket, by its hash, for the streams of a session; raises NotFound."""
        if await self._one("create_ticket", ticket, session_id, owner, life, token_expires_at) is None:
            raise NotFound

    async def use_ticket(
        self, ticket: bytes, session_id: str, life: float, grace: float = 0.0
    ) -> tuple[str, datetime | None] | None:
        """Return the owner that a ticket speaks for and when its token expires, and have it live on."""
        row = await self._one("use_ticket", ticket, session_id, life, grace)
        return row and tuple(row)


def columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def to_session(row: Any) -> Session:
    if row is None:
        raise NotFound
    return Session(**row)
