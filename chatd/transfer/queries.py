"""What `chatd export` and `chatd import` ask of the database; part of Repo."""

from collections.abc import Sequence
from typing import Any

from chatd.connections import QUERIES, Connection, Connections
from chatd.models import Message, Session

PATIENCE = 3600.0  # seconds that the other end of a pipe may stand still: the snapshot holds up vacuum


class TransferQueries(Connections):
    """Sessions and messages in bulk, mostly on a connection that is given: a command's snapshot, or transaction."""

    async def allow_idling(self, conn: Connection) -> None:
        await conn.execute(QUERIES["allow_idling"], f"{PATIENCE * 1000:.0f}")

    async def count_messages(self, owners: Sequence[str] | None) -> int:
        """Return how many messages there are of some owners, or of all."""
        return int((await self._one("count_messages", owners))[0])

    async def scan_sessions(
        self, conn: Connection, owner: str | None, last: Session | None, limit: int
    ) -> list[Session]:
        """Return the sessions after the last one that was seen: an owner's, latest activity first, or all, by id."""
        if owner is None:
            rows = await conn.fetch(QUERIES["scan_sessions"], last.id if last else "", limit)
        else:
            place = (last.updated_at, last.id) if last else (None, None)
            rows = await conn.fetch(QUERIES["list_sessions"], owner, *place, limit)
        return [Session(**row) for row in rows]

    async def scan_messages(self, conn: Connection, session_id: str, seq: int, limit: int) -> list[Message]:
        """Return the messages after a number, some megabytes of them at most, or one."""
        return [Message(**row) for row in await conn.fetch(QUERIES["scan_messages"], session_id, seq, limit)]

    async def import_session(self, conn: Connection, session: Session) -> tuple[bool, str | None]:
        """Make a session where none has its id: (True, None), else (False, the owner of the one that is there)."""
        values = (session.id, session.owner, session.character_id, session.title, session.status)
        counts = (session.message_count, session.created_at, session.updated_at)
        made, owner = False, None
        while not made and owner is None:  # one that another import has just made is not seen until it is asked again
            made, owner = await conn.fetchrow(QUERIES["import_session"], *values, *counts)
        return made, owner

    async def import_messages(self, conn: Connection, columns: Sequence[Sequence[Any]]) -> None:
        """Add messages, a column a field, as the query names them; asyncpg's UniqueViolationError: one is there."""
        await conn.execute(QUERIES["import_messages"], *columns)
