"""What a request counts for, and how its response tells of that."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from chatd.keys import CALLER, LIMITS, QUOTAS
from chatd.limits import Quota, headers_of


def note(request: web.Request, *quotas: Quota | None) -> None:
    """Have the response tell of quotas."""
    request[QUOTAS] = [*request.get(QUOTAS, ()), *(quota for quota in quotas if quota)]


async def add_quotas(request: web.Request, response: web.StreamResponse) -> None:
    """Put the quotas on the response, streams included; a refusal tells of its own alone."""
    if (quotas := request.get(QUOTAS)) and "RateLimit" not in response.headers:
        response.headers.update(headers_of(quotas))


def count_message(request: web.Request) -> None:
    """Raise RateLimited where the caller has posted too many messages in the last minute."""
    note(request, request.app[LIMITS].messages.count(request[CALLER].owner))


def count_request(request: web.Request) -> None:
    """Raise RateLimited where the caller has made too many other requests that write in the last minute."""
    note(request, request.app[LIMITS].requests.count(request[CALLER].owner))


@contextmanager
def hold_stream(request: web.Request) -> Iterator[None]:
    """Count a stream as long as the block runs; raises RateLimited."""
    with request.app[LIMITS].streams.hold(request[CALLER].owner) as quota:
        note(request, quota)
        yield
