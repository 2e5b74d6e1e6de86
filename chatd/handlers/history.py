"""The messages of a session."""

from typing import Any

from aiohttp import web

from chatd.audit.recording import record_read
from chatd.errors import InvalidRequest
from chatd.keys import CALLER, REPO
from chatd.requests import read_query, session_id_in
from chatd.schemas import HistoryPage, respond_text
from chatd.sse import encode


async def get_history(request: web.Request) -> web.Response:
    """Return a page, oldest message first; the database has written the messages as JSON."""
    session_id, page = session_id_in(request), read_query(request, HistoryPage)
    check_cursor(page)
    caller = request[CALLER]
    history = await request.app[REPO].read_history(session_id, caller.owner, **page, any_owner=caller.admin)
    await record_read(request, history.owner, session_id)
    if not history.has_place:
        raise no_such_message("after" if page["after"] is not None else "before")
    head = {
        "session_id": session_id,
        "status": history.status,
        "message_count": history.message_count,
        "before": history.before,
    }
    return respond_text(f'{encode(head)[:-1]},"messages":[{history.messages}]}}')


def check_cursor(page: dict[str, Any]) -> None:
    if page["before"] is not None and page["after"] is not None:
        raise InvalidRequest("Give before or after, not both.", errors={"after": ["Not together with before."]})
    for name in ("before", "after"):
        if "\0" in (page[name] or ""):
            raise no_such_message(name)


def no_such_message(name: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid: {name}.", errors={name: ["No such message in this session."]})
