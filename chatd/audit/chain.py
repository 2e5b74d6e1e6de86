"""The audit's chain: each entry's mac is over the entry and the mac before; the last one is signed, in the head.

So an entry that was changed, taken out or put in is found, by whoever has the key. Nobody without it can move the head
back to where it was not, and a head that was tampered with is not continued as if nothing had happened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from chatd.audit.key import AuditKey


def now() -> datetime:
    """Return the time of an entry that is made now."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """What somebody did, or was refused; `owner` is a name, which the audit itself does not hold.

    `keeps_name`: it is kept beside the audit; of what comes late not, since the owner may have been erased by then.
    """

    at: datetime
    action: str
    owner: str | None = None
    object: str | None = None
    request_id: str | None = None
    address: str | None = None
    outcome: str = "ok"
    keeps_name: bool = True


class Row(NamedTuple):
    """An entry as it stands in the audit; `owner` is an id."""

    seq: int
    at: datetime
    owner: str | None
    action: str
    object: str | None
    request_id: str | None
    address: str | None
    outcome: str
    mac: bytes


class Head(NamedTuple):
    seq: int
    mac: bytes
    signature: bytes


class Link(NamedTuple):
    """What the next entry is chained to: the head as it was seen, the number `seq` of the one before, its `mac`."""

    head: Head
    seq: int
    mac: bytes


class Anchor(NamedTuple):
    """The last entry that pruning left out."""

    seq: int
    at: datetime
    mac: bytes
    signature: bytes


NO_HEAD = Head(0, b"", b"")  # nothing was appended yet
START = Anchor(0, datetime.min.replace(tzinfo=UTC), b"", b"")
BROKEN = b"broken"  # in place of a mac: what is chained to it is found by whoever checks


def as_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def values_of(before: bytes, row: Row) -> tuple[str | int | None, ...]:
    """Return what an entry's mac is over; `before` is the mac of the entry before it."""
    return ("entry", before.hex(), row.seq, as_text(row.at), *row[2:-1])


def is_head_of(key: AuditKey, head: Head) -> bool:
    return key.made(head.signature, "head", head.seq, head.mac.hex())


def make_head(key: AuditKey, seq: int, mac: bytes) -> Head:
    return Head(seq, mac, key.sign("head", seq, mac.hex()))


def make_anchor(key: AuditKey, seq: int, mac: bytes, at: datetime) -> Anchor:
    return Anchor(seq, at, mac, key.sign("anchor", seq, as_text(at), mac.hex()))


def is_anchor_of(key: AuditKey, anchor: Anchor) -> bool:
    return key.made(anchor.signature, "anchor", anchor.seq, as_text(anchor.at), anchor.mac.hex())


def find_link(key: AuditKey, head: Head, last: int, known: Head | None) -> Link:
    """Return what to go on from; `last` is the last entry that is there, `known` the head that this process moved last.

    A head that is another key's is only believed where the entry is that key's, too: the mac tells which.
    """
    if last > head.seq or (known and known.seq > head.seq) or not is_plausible(key, head):
        return Link(head, max(last, head.seq), BROKEN)
    return Link(head, head.seq, head.mac)


def is_plausible(key: AuditKey, head: Head) -> bool:
    if head.seq == 0:
        return head == NO_HEAD
    if key.is_own(head.signature) or key.is_own(head.mac):
        return is_head_of(key, head)
    return True


def chain(key: AuditKey, link: Link, entries: Sequence[Entry]) -> list[Row]:
    """Return entries as they are to stand in the audit."""
    rows, mac = [], link.mac
    for seq, entry in enumerate(entries, link.seq + 1):
        owner = None if entry.owner is None else key.owner_id(entry.owner)
        said = (entry.action, entry.object, entry.request_id, entry.address, entry.outcome)
        row = Row(seq, entry.at, owner, *said, b"")
        mac = key.sign(*values_of(mac, row))
        rows.append(row._replace(mac=mac))
    return rows


def names_of(key: AuditKey, entries: Sequence[Entry]) -> dict[str, str]:
    """Return the owners of entries: names by their ids."""
    names = {entry.owner for entry in entries if entry.owner is not None and entry.keeps_name}
    return {key.owner_id(name): name for name in sorted(names)}
