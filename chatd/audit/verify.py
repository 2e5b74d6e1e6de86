"""Checking the audit: entry by entry, whatever their number."""

from collections import Counter

from chatd.audit.chain import NO_HEAD, START, Anchor, Head, Row, is_anchor_of, is_head_of, values_of
from chatd.audit.key import ID_SIZE, AuditKey
from chatd.connections import Connection
from chatd.repo import Repo

PAGE = 1000
MAX_FINDINGS = 10
CHANGED = {
    "entry": ", or does not follow the one before",
    "head": ": entries may be missing at the end",
    "anchor": ": entries may be missing at the beginning",
}


class Check:
    """Takes the audit's entries in order, from behind what pruning left out; `findings` is what is wrong."""

    def __init__(self, key: AuditKey, anchor: Anchor | None) -> None:
        self.key = key
        self.findings: list[str] = []
        self.others: Counter[bytes] = Counter()  # entries of other keys
        self.count = 0
        if anchor is not None and not is_anchor_of(key, anchor):
            self._find("anchor", anchor.seq, anchor.signature)
        self.seq, self.mac = (anchor or START).seq, (anchor or START).mac

    def take(self, row: Row) -> None:
        self.count += 1
        if row.seq <= self.seq:
            self._say(f"entry {row.seq} should not be there")
            return
        if row.seq > self.seq + 1:
            self._say(describe_missing(self.seq + 1, row.seq - 1))  # and the chain goes on behind the gap, unseen
        elif not self.key.made(row.mac, *values_of(self.mac, row)):
            self._find("entry", row.seq, row.mac)
        self.seq, self.mac = row.seq, row.mac

    def take_name(self, owner_id: str, name: str) -> None:
        if not self.others and self.key.owner_id(name) != owner_id:  # else it may be another key's
            self._say(f"the name of {owner_id} was changed")

    def end(self, head: Head | None) -> None:
        """Compare the head with the last entry."""
        if head is None:
            self._say("the head is missing")
        elif head.seq > self.seq:
            self._say(f"{describe_missing(self.seq + 1, head.seq)} at the end")
        elif (head.seq, head.mac) != (self.seq, self.mac):
            self._say(f"the head is at {head.seq}, and not at the last entry")
        elif head != NO_HEAD and not is_head_of(self.key, head):
            self._find("head", head.seq, head.signature)
        for key_id, count in self.others.items():
            self._say(f"{count} signed with another key than CHATD_AUDIT_KEY ({key_id.hex()})")

    def _find(self, what: str, seq: int, signature: bytes) -> None:
        if not self.key.is_own(signature):
            self.others[signature[:ID_SIZE]] += 1
        else:
            self._say(f"{what} {seq} was changed{CHANGED[what]}")

    def _say(self, finding: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)
        elif len(self.findings) == MAX_FINDINGS:
            self.findings.append("and more")


def describe_missing(first: int, last: int) -> str:
    return f"entry {first} is missing" if first == last else f"entries {first} to {last} are missing"


async def check_audit(repo: Repo, key: AuditKey) -> Check:
    """Check all of the audit, as it is at one moment."""
    async with repo.connection() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        check = Check(key, await repo.find_audit_anchor(conn))
        seq = 0
        while rows := await repo.scan_audit(conn, seq, PAGE):
            for row in rows:
                check.take(row)
            seq = rows[-1].seq
        found = await repo.read_audit_head(conn)
        check.end(found and found[0])
        await check_names(repo, conn, check)
    return check


async def check_names(repo: Repo, conn: Connection, check: Check) -> None:
    after = ""
    while owners := await repo.scan_owners(conn, after, PAGE):
        for owner_id, name in owners:
            check.take_name(owner_id, name)
        after = owners[-1][0]
