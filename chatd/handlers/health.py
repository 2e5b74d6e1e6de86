"""Is the process alive, and may it be sent requests?"""

from aiohttp import web

from chatd.errors import Unavailable
from chatd.keys import REPO, TURNS
from chatd.schemas import respond


async def get_healthz(_request: web.Request) -> web.Response:
    return respond({"status": "ok"})


async def get_readyz(request: web.Request) -> web.Response:
    """Answer 503 while the database is away or the server drains; it listens only once the database is migrated."""
    checks = {"database": "ok", "draining": "yes" if request.app[TURNS].draining else "no"}
    try:
        await request.app[REPO].ping()
    except Unavailable:
        checks["database"] = "unavailable"
    ready = checks == {"database": "ok", "draining": "no"}
    return respond({"status": "ok" if ready else "unavailable", "checks": checks}, status=200 if ready else 503)
