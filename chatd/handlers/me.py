"""What the caller's token says."""

import math
from datetime import UTC, datetime

from aiohttp import web

from chatd.keys import CALLER, CONFIG
from chatd.schemas import MeSchema, respond

ME = MeSchema()


async def get_me(request: web.Request) -> web.Response:
    """Tell who the caller is, and which characters it may speak for: null is any."""
    caller = request[CALLER]
    characters = caller.characters
    if characters is None and request.app[CONFIG].require_character:
        characters = frozenset()
    me = {
        "owner": caller.owner,
        "characters": None if characters is None else sorted(characters),
        "admin": caller.admin,
        "expires_at": None if caller.expires == math.inf else datetime.fromtimestamp(caller.expires, UTC),
    }
    return respond(ME.dump(me))
