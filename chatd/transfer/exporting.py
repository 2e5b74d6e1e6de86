"""`chatd export`: sessions with their messages, as they are at one moment, whatever servers write meanwhile."""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

from chatd.audit.key import AuditKey
from chatd.audit.writer import record_command
from chatd.connections import Connection
from chatd.errors import Unavailable
from chatd.models import Session
from chatd.owners import last_name
from chatd.repo import Repo
from chatd.transfer.format import dump_header, dump_line, dump_message, dump_session

PAGE = 500
ALL = "all owners"

Pieces = AsyncGenerator[bytes, None]


async def find_owners(repo: Repo, name: str | None) -> list[str | None]:
    """Return the names that an export of one is of: those that erasing it erases, or itself; [None]: of all."""
    return [None] if name is None else [*await repo.find_owners(name, last_name(name))] or [name]


async def count_messages(repo: Repo, owners: Sequence[str | None]) -> int | None:
    """Return how many messages there are of them now, None where that takes too long."""
    try:
        return await repo.count_messages([owner for owner in owners if owner is not None] or None)
    except Unavailable:
        return None


async def export(repo: Repo, key: AuditKey, owners: Sequence[str | None], counts: Counter[str]) -> Pieces:
    """Yield the file piece by piece, and count what is in it.

    Before the first one, it is in the audit who is about to be read.
    """
    objects = [ALL if owner is None else key.owner_id(owner) for owner in owners]
    await record_command(repo, key, "export", objects, "begun")
    async with repo.connection() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        await repo.allow_idling(conn)
        yield dump_header(datetime.now(UTC))
        for owner in owners:
            async for piece in export_owner(repo, conn, owner, counts):
                yield piece
        yield dump_line("end", counts)
    await record_command(repo, key, "export", objects, "ok")


async def export_owner(repo: Repo, conn: Connection, owner: str | None, counts: Counter[str]) -> Pieces:
    last = None
    while sessions := await repo.scan_sessions(conn, owner, last, PAGE):
        for session in sessions:
            async for piece in export_session(repo, conn, session, counts):
                yield piece
        last = sessions[-1]


async def export_session(repo: Repo, conn: Connection, session: Session, counts: Counter[str]) -> Pieces:
    counts["sessions"] += 1
    yield dump_session(session)
    seq = 0
    while messages := await repo.scan_messages(conn, session.id, seq, PAGE):
        seq = messages[-1].seq
        counts["messages"] += len(messages)
        yield b"".join(dump_message(session.id, message) for message in messages)
