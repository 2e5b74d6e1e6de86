"""Cross-origin requests (https://fetch.spec.whatwg.org/#http-cors-protocol): which pages elsewhere may read answers.

No credentials: a page sends its token itself, and no cookie means anything here.
"""

from aiohttp import web

from chatd.errors import Forbidden, Handler
from chatd.keys import CONFIG

ANY = "*"
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-Request-ID",
    "Access-Control-Max-Age": "600",
}
EXPOSED = "X-Request-ID, Retry-After, RateLimit, RateLimit-Policy, Location, Idempotency-Replayed"


@web.middleware
async def answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell a browser what a page may ask for, before it asks: no token comes with this question."""
    if request.method != "OPTIONS" or not {"Origin", "Access-Control-Request-Method"} <= request.headers.keys():
        return await handler(request)
    if allowed_origin(request) is None:
        raise Forbidden("This origin is not among CHATD_CORS_ORIGINS.")
    return web.Response(status=204, headers=PREFLIGHT)


async def add_cors(request: web.Request, response: web.StreamResponse) -> None:
    """Let pages of the listed origins read a response, errors and streams included."""
    if not request.app[CONFIG].cors_origins:
        return
    response.headers.add("Vary", "Origin")
    if (origin := allowed_origin(request)) is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = EXPOSED


def allowed_origin(request: web.Request) -> str | None:
    """Return the origin that may read the answer; `null` is any page that hides where it is from."""
    given, allowed = request.headers.getall("Origin", []), request.app[CONFIG].cors_origins
    if len(given) != 1 or given[0] == "null":
        return None
    if ANY in allowed:
        return ANY
    return given[0] if given[0] in allowed else None
