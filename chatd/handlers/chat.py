"""A turn: posted and waited for, posted and streamed, stopped."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from chatd.audit.recording import record_creation, recorded
from chatd.characters import check_character
from chatd.errors import NotFound, RateLimited, UpstreamFailed, problem
from chatd.handlers.stream import send
from chatd.keys import CALLER, JOURNAL, MIRRORS, REPO, TURNS
from chatd.logs import go_on_with
from chatd.models import Turn, TurnRequest
from chatd.quotas import count_message, count_request, hold_stream, note
from chatd.readers import locate_start
from chatd.requests import check_session_id, idempotency_key, read_body, session_id_in
from chatd.schemas import ChatRequest, dump_message, respond

REPLAYED = {"Idempotency-Replayed": "true"}


async def begin(request: web.Request) -> tuple[Turn, bool]:
    """Begin the turn that is asked for, or return the one that its idempotency key had begun, and True.

    Where a limit is reached, a request that begins nothing is answered all the same.
    """
    key = idempotency_key(request)
    body = await read_body(request, ChatRequest)
    session_id = check_session_id(body["session_id"]) if body["session_id"] is not None else None
    check_character(request, body["character_id"], session_id)
    asked = TurnRequest(
        request[CALLER].owner,
        session_id,
        body["character_id"],
        body["message"],
        key,
        begun=None if session_id else record_creation(request),
    )
    turns = request.app[TURNS]
    try:
        count_message(request)
    except RateLimited:
        if turn := await turns.replay(asked):
            return turn, True
        raise
    turn, replayed, quotas = await turns.begin(asked)
    note(request, *quotas)
    return turn, replayed


async def post_chat(request: web.Request) -> web.Response:
    turn, replayed = await begin(request)
    go_on_with(turn)
    if not wants_no_answer(request):
        turn = await request.app[MIRRORS].wait_for_end(turn)
    headers = REPLAYED if replayed else {}
    return accepted(turn, headers) if turn.state == "running" else await answered(request, turn, headers)


async def post_stream(request: web.Request) -> web.StreamResponse:
    with hold_stream(request):
        turn, replayed = await begin(request)
        go_on_with(turn)
        place = await locate_start(request.app[REPO], request.app[MIRRORS], turn)
        return await send(request, place, REPLAYED if replayed else {})


async def post_stop(request: web.Request) -> web.Response:
    """Stop what runs in a session, and keep its text."""
    repo, session_id = request.app[REPO], session_id_in(request)
    count_request(request)
    turn = await repo.find_latest_turn(session_id, request[CALLER].owner)
    body: dict[str, Any] = {"session_id": session_id, "stopped": False, "message_id": None}
    if turn and turn.state == "running":
        async with recorded(request, "turn.stop", session_id):
            turn = await request.app[TURNS].stop(turn)
        body |= {"stopped": turn.state == "stopped", "message_id": json.loads(turn.last_event or "{}")["message_id"]}
    return respond(body)


def wants_no_answer(request: web.Request) -> bool:
    """Tell whether the client prefers to go on without the answer (RFC 7240)."""
    preferences = ",".join(request.headers.getall("Prefer", [])).lower().split(",")
    return any(preference.partition(";")[0].strip() == "respond-async" for preference in preferences)


def accepted(turn: Turn, headers: Mapping[str, str]) -> web.Response:
    location = f"/agent/chat/stream/{turn.session_id}"
    body = {
        "session_id": turn.session_id,
        "turn_id": turn.id,
        "message_id": turn.message_id,
        "status": "thinking",
    }
    return respond(body, status=202, headers={"Location": location, **headers})


async def answered(request: web.Request, turn: Turn, headers: Mapping[str, str]) -> web.Response:
    """Return a turn's answer, or a problem where the model could not give one."""
    repo = request.app[REPO]
    last = json.loads(turn.last_event or "{}")
    ids: dict[str, Any] = {
        "session_id": turn.session_id,
        "turn_id": turn.id,
        "message_id": last["message_id"],
    }
    if turn.state == "failed":
        failure = problem(UpstreamFailed(last["error"], **ids, session_status="error", reason=last["code"]))
        failure.headers.update(headers)
        return failure
    message = await request.app[JOURNAL].insist(lambda: repo.find_message(turn.session_id, turn.message_id))
    if message is None and last["message_id"]:
        raise NotFound  # the session was deleted just now
    return respond({**ids, "status": "idle", "message": message and dump_message(message)}, headers=headers)
