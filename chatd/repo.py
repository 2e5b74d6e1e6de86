"""The only place that queries: a method a statement, named like its file in sql/queries; the rest composes them."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from importlib.resources import files
from typing import Any

import asyncpg

from chatd.errors import CharacterForbidden, InDoubt, NotFound, TurnInProgress, Unavailable
from chatd.models import Answer, Message, Session, Turn

Connection = Any  # asyncpg ships no types

ACQUIRE_TIMEOUT = 2.0
STATEMENT_TIMEOUT = 5.0
# What a database that is away, starting, stopping, full, frozen or overloaded makes asyncpg raise.
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresIOError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
)
SETTINGS = {
    "application_name": "chatd",
    "synchronous_commit": "on",  # the promise: on disk before on screen
    "jit": "off",
    "lock_timeout": "4s",
    "idle_in_transaction_session_timeout": "10s",
}
QUERIES = {
    file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
    for file in (files("chatd.sql") / "queries").iterdir()
}


async def set_codecs(conn: Connection) -> None:
    await conn.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


async def keep_session(_conn: Connection) -> None:
    """Skip asyncpg's reset on release: nothing here changes a connection's session, and it costs a round trip."""


@asynccontextmanager
async def open_repo(dsn: str, pool_size: int) -> AsyncIterator["Repo"]:
    """Open a pool of at most `pool_size` connections."""
    pool = await asyncpg.create_pool(
        dsn,
        min_size=pool_size,  # a new connection in the middle of things costs 10 ms
        max_size=pool_size,
        command_timeout=STATEMENT_TIMEOUT,
        timeout=ACQUIRE_TIMEOUT,
        init=set_codecs,
        reset=keep_session,
        server_settings=SETTINGS,
    )
    try:
        yield Repo(pool)
    finally:
        try:
            await asyncio.wait_for(pool.close(), STATEMENT_TIMEOUT)
        except TimeoutError:
            pool.terminate()


class Repo:
    """The database. Every method raises Unavailable where it can't be reached or does not answer in time."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        task, backend = asyncio.current_task(), None
        cancelling = task.cancelling() if task else 0
        try:
            async with self.pool.acquire(timeout=ACQUIRE_TIMEOUT) as conn:
                backend = conn.get_server_pid()
                try:
                    yield conn
                except asyncpg.InterfaceError as error:
                    if not conn.is_closed():  # used wrongly, which no waiting mends
                        raise RuntimeError(str(error)) from error
                    raise
        except AWAY as error:
            if task and task.cancelling() > cancelling:  # asyncpg's own troubles while it was cancelled
                raise asyncio.CancelledError from error
            raise (InDoubt(backend) if backend else Unavailable()) from error

    async def _all(self, query: str, *values: Any) -> list[Any]:
        async with self.connection() as conn:
            rows: list[Any] = await conn.fetch(QUERIES[query], *values)
        return rows

    async def _one(self, query: str, *values: Any) -> Any:
        async with self.connection() as conn:
            return await conn.fetchrow(QUERIES[query], *values)

    async def ping(self) -> None:
        async with self.connection() as conn:
            await conn.execute("SELECT 1")

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
        return Session(**await self._one("create_session", session_id, owner, character_id, title, message_id, prompt))

    async def get_session(self, session_id: str, owner: str) -> Session:
        """Return a session; raises NotFound where it does not exist or is another owner's."""
        return to_session(await self._one("find_session", session_id, owner))

    async def rename_session(self, session_id: str, owner: str, title: str | None) -> Session:
        return to_session(await self._one("rename_session", session_id, owner, title))

    async def delete_session(self, session_id: str, owner: str) -> None:
        if await self._one("delete_session", session_id, owner) is None:
            raise NotFound

    async def list_sessions(self, owner: str, before: tuple[datetime, str] | None, limit: int) -> list[Session]:
        rows = await self._all("list_sessions", owner, *(before or (None, None)), limit)
        return [Session(**row) for row in rows]

    # Messages

    async def find_message(self, session_id: str, message_id: str) -> Message | None:
        row = await self._one("find_message", session_id, message_id)
        return row and Message(**row)

    async def list_messages_before(self, session_id: str, seq: int | None, limit: int) -> list[Message]:
        """Return messages oldest first."""
        rows = await self._all("list_messages_before", session_id, seq, limit)
        return [Message(**row) for row in reversed(rows)]

    async def list_messages_after(self, session_id: str, seq: int, limit: int) -> list[Message]:
        return [Message(**row) for row in await self._all("list_messages_after", session_id, seq, limit)]

    async def find_system_prompt(self, session_id: str) -> str | None:
        row = await self._one("find_system_prompt", session_id)
        return row and str(row["content"])

    async def list_context(self, session_id: str, before: int | None, limit: int) -> list[tuple[int, str, str]]:
        """Return (seq, role, content), latest first."""
        return [tuple(row) for row in await self._all("list_context", session_id, before, limit)]

    async def set_context_start(self, session_id: str, seq: int) -> None:
        await self._one("set_context_start", session_id, seq)

    # Turns

    async def begin_turn(
        self,
        session_id: str,
        owner: str,
        character_id: int,
        content: str,
        turn: Turn,
        boot_id: uuid.UUID,
        start: str,
        *,
        new_session: bool,
    ) -> Turn:
        """Begin a turn in one transaction, in a session that it makes where `new_session` says so.

        Raises NotFound, CharacterForbidden, TurnInProgress (with the running turn's id).
        """
        values = (session_id, owner, character_id, turn.user_message_id, content, turn.id, turn.message_id)
        async with self.connection() as conn:
            try:
                async with conn.transaction() if new_session else nullcontext():
                    if new_session:
                        session = (session_id, owner, character_id, None, None, None)
                        await conn.fetchrow(QUERIES["create_session"], *session)
                    row = await conn.fetchrow(QUERIES["begin_turn"], *values, boot_id, start)
            except asyncpg.UniqueViolationError as error:
                raise TurnInProgress(**await self._running(conn, session_id)) from error
            if row is None:
                to_session(await conn.fetchrow(QUERIES["find_session"], session_id, owner))
                raise CharacterForbidden
        return Turn(**row)

    async def abandon_turn(self, turn: Turn, owner: str, backend: int, *, new_session: bool) -> None:
        """Undo a begin_turn that is in doubt, its connection first: it may still be about to be done."""
        await self._one("terminate_backend", backend)
        async with self.connection() as conn, conn.transaction():
            await conn.fetchrow(QUERIES["lock_session"], turn.session_id)
            if new_session:
                await conn.fetchrow(QUERIES["delete_session"], turn.session_id, owner)
            else:
                await conn.fetchrow(QUERIES["abandon_turn"], turn.id)

    async def _running(self, conn: Connection, session_id: str) -> dict[str, str]:
        row = await conn.fetchrow(QUERIES["find_latest_turn"], session_id)
        return {"turn_id": row["id"]} if row else {}

    async def find_turn(self, session_id: str, turn_id: str) -> Turn | None:
        row = await self._one("find_turn", session_id, turn_id)
        return row and Turn(**row)

    async def find_latest_turn(self, session_id: str) -> Turn | None:
        row = await self._one("find_latest_turn", session_id)
        return row and Turn(**row)

    async def record_attempt(self, turn_id: str, epoch: int, attempt: int) -> bool:
        """Say that a request is about to be sent; False: the turn is not this process's any more."""
        return await self._one("record_attempt", turn_id, epoch, attempt) is not None

    async def append_events(self, events: Sequence[tuple[str, int, int, str]]) -> set[tuple[str, int]]:
        """Append (turn_id, epoch, seq, JSON) and return the (turn_id, seq) that were written now."""
        rows = await self._all("append_events", *map(list, zip(*events, strict=True)))
        return {(row["turn_id"], row["seq"]) for row in rows}

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
            *(answer.state, answer.outcome, answer.last_seq),
            *(answer.text, answer.message_status, answer.content_blocks, answer.model, answer.stop_reason),
            *(answer.token_usage, answer.upstream_id, answer.first_content_at),
            *map(list, zip(*events, strict=True)),
        )
        return row is not None

    # Recovery

    async def renew_leases(self, turn_ids: Sequence[str], boot_id: uuid.UUID) -> set[str]:
        """Return the ids whose lease was renewed: the others are lost to this process, or over."""
        return {row["id"] for row in await self._all("renew_leases", turn_ids, boot_id)}

    async def claim_turns(
        self, boot_id: uuid.UUID, dead: Sequence[uuid.UUID], limit: int, own: Sequence[str]
    ) -> list[Turn]:
        return [Turn(**row) for row in await self._all("claim_turns", boot_id, dead, limit, own)]


def to_session(row: Any) -> Session:
    if row is None:
        raise NotFound
    return Session(**row)
