"""A turn: posted and waited for, or posted and streamed."""

import asyncio
import json
from typing import Any

from aiohttp import web

from chatd.errors import UpstreamFailed
from chatd.handlers.stream import send
from chatd.journal import Reader
from chatd.keys import JOURNAL, OWNER, REPO, TURNS
from chatd.models import Answer
from chatd.run import Run
from chatd.schemas import ChatRequest, check_session_id, dump_message, read_body, respond


async def begin(request: web.Request) -> Run:
    body = await read_body(request, ChatRequest)
    session_id = check_session_id(body["session_id"]) if body["session_id"] is not None else None
    return await request.app[TURNS].begin(session_id, request[OWNER], body["character_id"], body["message"])


async def post_chat(request: web.Request) -> web.Response:
    run = await begin(request)
    if not wants_no_answer(request):
        await asyncio.wait([run.task])
    return accepted(run) if run.answered is None else await answered(request, run, run.answered)


async def post_stream(request: web.Request) -> web.StreamResponse:
    run = await begin(request)
    return await send(request, Reader(run.log, 0))


def wants_no_answer(request: web.Request) -> bool:
    """Tell whether the client prefers to go on without the answer (RFC 7240)."""
    preferences = ",".join(request.headers.getall("Prefer", [])).lower().split(",")
    return any(preference.partition(";")[0].strip() == "respond-async" for preference in preferences)


def accepted(run: Run) -> web.Response:
    turn = run.turn
    location = f"/agent/chat/stream/{turn.session_id}"
    body = {
        "session_id": turn.session_id,
        "turn_id": turn.id,
        "message_id": turn.message_id,
        "status": "thinking",
    }
    return respond(body, status=202, headers={"Location": location})


async def answered(request: web.Request, run: Run, answer: Answer) -> web.Response:
    """Return a turn's answer; raises UpstreamFailed where the model could not give one."""
    turn, repo = run.turn, request.app[REPO]
    outcome = json.loads(answer.outcome)
    ids: dict[str, Any] = {
        "session_id": turn.session_id,
        "turn_id": turn.id,
        "message_id": outcome["message_id"],
    }
    if answer.state == "failed":
        raise UpstreamFailed(outcome["error"], **ids, session_status="error", reason=outcome["code"])
    message = await request.app[JOURNAL].insist(lambda: repo.find_message(turn.session_id, turn.message_id))
    return respond({**ids, "status": "idle", "message": message and dump_message(message)})
