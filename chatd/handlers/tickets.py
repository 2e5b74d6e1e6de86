"""Tickets for those that can't send a token: see chatd.tickets."""

import time

from aiohttp import web

from chatd.audit.recording import recorded
from chatd.keys import CALLER, REPO
from chatd.quotas import count_request
from chatd.requests import check_session_id, read_body
from chatd.schemas import TicketRequest, respond
from chatd.tickets import LIFE, create_ticket


async def post_ticket(request: web.Request) -> web.Response:
    body = await read_body(request, TicketRequest)
    session_id = check_session_id(body["session_id"])
    count_request(request)
    caller = request[CALLER]
    async with recorded(request, "ticket.create", session_id):
        ticket = await create_ticket(request.app[REPO], caller, session_id)
    life = int(min(LIFE, caller.expires - time.time()))
    return respond({"ticket": ticket, "session_id": session_id, "expires_in": life}, status=201)
