"""Sessions: create, list, read, rename, delete."""

import re
from datetime import UTC, datetime, timedelta

from aiohttp import web

from chatd.audit.recording import record_read, recorded
from chatd.characters import check_character
from chatd.crash import crash_point
from chatd.errors import InvalidRequest
from chatd.keys import CALLER, REPO, TURNS
from chatd.models import Session, new_id
from chatd.quotas import count_request
from chatd.requests import read_body, read_query, session_id_in
from chatd.schemas import Page, RenameRequest, SessionRequest, dump_session, respond

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CURSOR = re.compile(r"([0-9]{1,17})\.(sess-[0-9a-f]{32})")  # microseconds and id: a place in the order of activity


async def post_session(request: web.Request) -> web.Response:
    body = await read_body(request, SessionRequest)
    check_character(request, body["character_id"])
    count_request(request)
    session_id = new_id("sess")
    async with recorded(request, "session.create", session_id):
        session = await request.app[REPO].create_session(
            session_id,
            request[CALLER].owner,
            body["character_id"],
            body["title"],
            new_id("msg"),
            body["system_prompt"] or None,
        )
    return respond(dump_session(session), status=201, headers={"Location": f"/agent/session/{session.id}"})


async def get_sessions(request: web.Request) -> web.Response:
    page = read_query(request, Page)
    before = None if page["before"] is None else read_cursor(page["before"])
    found = await request.app[REPO].list_sessions(request[CALLER].owner, before, page["limit"] + 1)
    sessions = found[: page["limit"]]
    return respond(
        {
            "sessions": [dump_session(session) for session in sessions],
            "next": make_cursor(sessions[-1]) if len(found) > len(sessions) else None,
        }
    )


def make_cursor(session: Session) -> str:
    return f"{(session.updated_at - EPOCH) // timedelta(microseconds=1)}.{session.id}"


def read_cursor(cursor: str) -> tuple[datetime, str]:
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidRequest("Invalid: before.", errors={"before": ["Not a cursor of this list."]})
    return EPOCH + timedelta(microseconds=int(match[1])), match[2]


async def get_session(request: web.Request) -> web.Response:
    caller = request[CALLER]
    session = await request.app[REPO].find_session(session_id_in(request), caller.owner, any_owner=caller.admin)
    await record_read(request, session.owner, session.id)
    return respond(dump_session(session))


async def patch_session(request: web.Request) -> web.Response:
    session_id = session_id_in(request)
    body = await read_body(request, RenameRequest)
    count_request(request)
    async with recorded(request, "session.rename", session_id):
        session = await request.app[REPO].rename_session(session_id, request[CALLER].owner, body["title"])
    return respond(dump_session(session))


async def delete_session(request: web.Request) -> web.Response:
    repo, session_id = request.app[REPO], session_id_in(request)
    turn = await repo.find_latest_turn(session_id, request[CALLER].owner)
    async with recorded(request, "session.delete", session_id):
        if turn and turn.state == "running":
            await request.app[TURNS].stop(turn)
            crash_point("before_delete")
        await repo.delete_session(session_id, request[CALLER].owner)
    return web.Response(status=204)
