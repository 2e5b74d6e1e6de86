"""What is asked of the database about the audit, and to erase a person; part of Repo."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from chatd.audit.chain import Anchor, Head, Link, Row
from chatd.connections import QUERIES, Connection, Connections

LONG_TIMEOUT = 600.0  # seconds for a statement of a command that deletes what has become large


class AuditQueries(Connections):
    """The audit's entries, head and anchors, and what is to be erased of an owner.

    Where a connection is given, a statement is one of several of a transaction, or of a snapshot.
    """

    async def append_audit(
        self, conn: Connection, link: Link, head: Head, names: Mapping[str, str], rows: Sequence[Row]
    ) -> bool:
        """Append entries and move the head; False: the audit has moved meanwhile."""
        owners = [list(names), list(names.values())]
        columns = [list(column) for column in zip(*rows, strict=True)]
        try:
            status = await conn.execute(QUERIES["append_audit"], *link.head[:2], *head, *owners, *columns)
        except asyncpg.UniqueViolationError:  # an entry that chatd has not written
            return False
        return int(status.rpartition(" ")[2]) == len(rows)

    async def read_audit_head(self, conn: Connection) -> tuple[Head, int] | None:
        """Return the head, and the number of the last entry that is there."""
        row = await conn.fetchrow(QUERIES["read_audit_head"])
        return row and (Head(*row[:3]), row[3])

    async def find_audit_mac(self, conn: Connection, seq: int) -> bytes | None:
        mac: bytes | None = await conn.fetchval(QUERIES["find_audit_mac"], seq)
        return mac

    async def scan_audit(self, conn: Connection, seq: int, limit: int) -> list[Row]:
        return [Row(*row) for row in await conn.fetch(QUERIES["scan_audit"], seq, limit)]

    async def scan_owners(self, conn: Connection, after: str, limit: int) -> list[tuple[str, str]]:
        """Return the ids that follow one, and whose they are."""
        return [(row[0], row[1]) for row in await conn.fetch(QUERIES["scan_owners"], after, limit)]

    async def find_audit_anchor(self, conn: Connection) -> Anchor | None:
        row = await conn.fetchrow(QUERIES["find_audit_anchor"])
        return row and Anchor(*row)

    async def find_audit_end(self, conn: Connection, before: datetime) -> tuple[int, bytes] | None:
        """Return the last entry, and its mac, of those at the beginning that are older than a time."""
        row = await conn.fetchrow(QUERIES["find_audit_end"], before)
        return row and tuple(row)

    async def prune_audit(self, conn: Connection, seq: int) -> int:
        """Delete the entries up to one of them, and return how many; from here on nobody else appends."""
        return int(await conn.fetchval(QUERIES["prune_audit"], seq, timeout=LONG_TIMEOUT))

    async def add_audit_anchor(self, conn: Connection, anchor: Anchor) -> None:
        await conn.execute(QUERIES["add_audit_anchor"], *anchor)

    async def list_audit(self, before: int | None, limit: int) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._all("list_audit", before, limit)]

    # Erasing a person

    async def find_owners(self, first: str, last: str) -> list[str]:
        """Return the names that there is something of: this one, or up to `last` those that begin with it and `:`."""
        return [row[0] for row in await self._all("find_owners", first, last)]

    async def erase_session(self, owner: str) -> bool:
        """Delete a session; False: there is none left."""
        async with self.connection() as conn:
            return await conn.fetchrow(QUERIES["erase_session"], owner, timeout=LONG_TIMEOUT) is not None

    async def erase_keys(self, owner: str, limit: int) -> int:
        """Delete a batch of idempotency keys and return how many."""
        return len(await self._all("erase_keys", owner, limit))

    async def erase_usage(self, owner: str) -> None:
        """Delete what was counted of an owner's tokens."""
        await self._all("erase_usage", owner)

    async def erase_name(self, owner: str) -> list[str]:
        """Delete an owner's name and return the ids that the audit knows the owner by."""
        return [row["id"] for row in await self._all("erase_name", owner)]
