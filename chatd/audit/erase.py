"""`chatd erase`: all of a person's data is deleted, and the audit tells of it by an id."""

import asyncio
from collections import Counter

from chatd.audit.key import AuditKey
from chatd.audit.writer import INTERVAL, record_command
from chatd.errors import StartError
from chatd.owners import last_name
from chatd.repo import Repo

KEYS = 1000
PASSES = 5


async def erase(repo: Repo, key: AuditKey, name: str) -> Counter[str]:
    """Delete all that there is of an owner, and return how much of what it was.

    Servers may run meanwhile: what they answer in these sessions is lost to them. Raises StartError where the owner
    goes on writing.
    """
    while await repo.sweep_usage(KEYS) == KEYS:  # what is old is found by its day alone
        pass
    erased = Counter({"sessions": 0, "idempotency keys": 0, "names": 0})
    last = last_name(name)
    ids: dict[str, set[str]] = {}
    found = [key.owner_id(owner) for owner in await repo.find_owners(name, last)]
    await record_command(repo, key, "owner.erase", found, "begun")
    for _ in range(PASSES):
        if not (owners := await repo.find_owners(name, last)):
            break
        for owner in owners:
            ids.setdefault(owner, {key.owner_id(owner)}).update(await erase_owner(repo, owner, erased))
        await asyncio.sleep(2 * INTERVAL)  # a server may have had something of theirs in hand
    erased["names"] = len(ids)
    await record_command(repo, key, "owner.erase", sorted(set().union(*ids.values())) or [key.owner_id(name)], "ok")
    if await repo.find_owners(name, last):
        raise StartError("the owner is still writing: make sure that they have no valid token, then erase again")
    return erased


async def erase_owner(repo: Repo, owner: str, erased: Counter[str]) -> list[str]:
    """Delete what there is of one name now, and return the ids that the audit knows it by."""
    while await repo.erase_session(owner):
        erased["sessions"] += 1
    while count := await repo.erase_keys(owner, KEYS):
        erased["idempotency keys"] += count
    await repo.erase_usage(owner)
    return await repo.erase_name(owner)
