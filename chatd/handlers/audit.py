"""The audit, for admins."""

import re
from typing import Any

from aiohttp import web

from chatd.errors import Forbidden, InvalidRequest
from chatd.keys import CALLER, REPO
from chatd.requests import read_query
from chatd.schemas import AuditEntry, AuditPage, respond

CURSOR = re.compile(r"[0-9]{1,18}")
ENTRY = AuditEntry()


async def get_audit(request: web.Request) -> web.Response:
    """Return a page, latest entry first."""
    if not request[CALLER].admin:
        raise Forbidden("The audit is for admins.")
    page = read_query(request, AuditPage)
    found = await request.app[REPO].list_audit(read_cursor(page["before"]), page["limit"] + 1)
    entries: list[dict[str, Any]] = [dict(ENTRY.dump(entry)) for entry in found[: page["limit"]]]
    return respond({"entries": entries, "next": str(entries[-1]["seq"]) if len(found) > len(entries) else None})


def read_cursor(cursor: str | None) -> int | None:
    if cursor is not None and not CURSOR.fullmatch(cursor):
        raise InvalidRequest("Invalid: before.", errors={"before": ["Not a cursor of this list."]})
    return None if cursor is None else int(cursor)
