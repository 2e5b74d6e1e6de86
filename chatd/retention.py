"""What is deleted by command: the audit's old entries, and all of a person's data. Both stand in the audit."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from chatd.audit import INTERVAL, Audit, now
from chatd.audit_key import AuditKey
from chatd.chain import Entry, make_anchor
from chatd.checking import check_audit
from chatd.errors import StartError
from chatd.repo import Repo

KEYS = 1000
PASSES = 5
EVE_CHARACTER = re.compile(r"CHARACTER:EVE:[0-9]+")  # who has had several owners, perhaps: see chatd.tokens.eve_owner


async def prune(repo: Repo, key: AuditKey, before: datetime) -> tuple[int, list[str]]:
    """Delete the entries that are older than a time; return how many, and what was wrong with the audit.

    In one transaction, with an anchor that the first entry that stays is chained to. Whatever is wrong is told in the
    audit, too: the evidence may be among what is deleted.
    """
    findings = (await check_audit(repo, key)).findings
    async with repo.connection() as conn, conn.transaction():
        end = await repo.find_audit_end(conn, before)
        if end is None:
            return 0, findings
        deleted = await repo.prune_audit(conn, end[0])
        await repo.add_audit_anchor(conn, make_anchor(key, *end, now()))
        outcome = "unverified" if findings else "ok"
        entry = Entry(now(), "audit.prune", object=f"entries up to {end[0]}", outcome=outcome)
        await Audit(repo, key).append_on(conn, [entry])
    return deleted, findings


async def erase(repo: Repo, key: AuditKey, name: str) -> Counter[str]:
    """Delete all that there is of an owner, and return how much of what it was.

    Servers may run meanwhile: what they answer in these sessions is lost to them. Raises StartError where the owner
    goes on writing.
    """
    erased = Counter({"sessions": 0, "idempotency keys": 0, "names": 0})
    last = last_name(name)
    ids: dict[str, set[str]] = {}
    await tell(repo, key, "owner.erase", [key.owner_id(owner) for owner in await repo.find_owners(name, last)], "begun")
    for _ in range(PASSES):
        if not (owners := await repo.find_owners(name, last)):
            break
        for owner in owners:
            ids.setdefault(owner, {key.owner_id(owner)}).update(await erase_owner(repo, owner, erased))
        await asyncio.sleep(2 * INTERVAL)  # a server may have had something of theirs in hand
    erased["names"] = len(ids)
    await tell(repo, key, "owner.erase", sorted(set().union(*ids.values())) or [key.owner_id(name)], "ok")
    if await repo.find_owners(name, last):
        raise StartError("the owner is still writing: make sure that they have no valid token, then erase again")
    return erased


def last_name(name: str) -> str:
    """Return the name itself, or for an EVE character the end of the names that it had."""
    return f"{name};" if EVE_CHARACTER.fullmatch(name) else name


async def tell(repo: Repo, key: AuditKey, action: str, objects: Sequence[str], outcome: str) -> None:
    """Put in the audit what a command is about to do, or has done: it may end in between."""
    if entries := [Entry(now(), action, object=each, outcome=outcome) for each in objects]:
        async with repo.connection() as conn:
            await Audit(repo, key).append_on(conn, entries)


async def erase_owner(repo: Repo, owner: str, erased: Counter[str]) -> list[str]:
    """Delete what there is of one name now, and return the ids that the audit knows it by."""
    while await repo.erase_session(owner):
        erased["sessions"] += 1
    while count := await repo.erase_keys(owner, KEYS):
        erased["idempotency keys"] += count
    await repo.erase_usage(owner)
    return await repo.erase_name(owner)
