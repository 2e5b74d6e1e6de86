"""`chatd audit prune`: the audit's old entries are deleted, and the audit tells of it."""

from datetime import datetime

from chatd.audit.chain import Entry, make_anchor, now
from chatd.audit.key import AuditKey
from chatd.audit.verify import check_audit
from chatd.audit.writer import Audit
from chatd.repo import Repo


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
