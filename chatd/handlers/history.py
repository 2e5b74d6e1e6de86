"""The messages of a session."""

from aiohttp import web

from chatd.errors import InvalidRequest
from chatd.keys import OWNER, REPO
from chatd.models import Message
from chatd.repo import Repo
from chatd.schemas import HistoryPage, dump_message, read_query, respond, session_id_in


async def get_history(request: web.Request) -> web.Response:
    session_id, page = session_id_in(request), read_query(request, HistoryPage)
    repo = request.app[REPO]
    session = await repo.get_session(session_id, request[OWNER])
    messages, older = await read_page(repo, session_id, **page)
    return respond(
        {
            "session_id": session.id,
            "status": session.status,
            "message_count": session.message_count,
            "messages": [dump_message(message) for message in messages],
            "before": messages[0].id if messages and older else None,
        }
    )


async def read_page(
    repo: Repo, session_id: str, limit: int, before: str | None, after: str | None
) -> tuple[list[Message], bool]:
    """Return a page, oldest first, and whether there are older messages than these."""
    if before is not None and after is not None:
        raise InvalidRequest("Give before or after, not both.", errors={"after": ["Not together with before."]})
    if after is not None:
        place = await seq_of(repo, session_id, "after", after)
        return await repo.list_messages_after(session_id, place, limit), True
    end = None if before is None else await seq_of(repo, session_id, "before", before)
    found = await repo.list_messages_before(session_id, end, limit + 1)
    return found[-limit:], len(found) > limit


async def seq_of(repo: Repo, session_id: str, name: str, message_id: str) -> int:
    message = await repo.find_message(session_id, message_id) if "\0" not in message_id else None
    if message is None:
        raise InvalidRequest(f"Invalid: {name}.", errors={name: ["No such message in this session."]})
    return message.seq
