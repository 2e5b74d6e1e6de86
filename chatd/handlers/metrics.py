"""The metrics, for Prometheus."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest

from chatd.errors import Forbidden
from chatd.keys import CALLER, CHECK_TOKEN, METRICS


async def get_metrics(request: web.Request) -> web.Response:
    """Return them in the format that is asked for; who needs a token for it (see authenticate) has to be an admin."""
    caller = request.get(CALLER)
    if CHECK_TOKEN in request.app and caller and not caller.admin:
        raise Forbidden("The metrics are for admins, and for this host's own programs.")
    encode, content_type = choose_format(request.headers.get("Accept", ""))
    return web.Response(body=encode(request.app[METRICS].registry), headers={"Content-Type": content_type})


def choose_format(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    try:
        return choose_encoder(accept)
    except TypeError:  # a version that is no number
        return generate_latest, CONTENT_TYPE_PLAIN_0_0_4
