"""What is measured of responses, and of the event loop."""

import asyncio
import time

from aiohttp import hdrs, web
from prometheus_client import Histogram

from chatd.keys import ARRIVED, METRICS

LAG_INTERVAL = 0.5  # seconds between two looks at how late the loop is


async def count_response(request: web.Request, response: web.StreamResponse) -> None:
    """Count a response as it goes out: a stream when it begins, others with how long they took."""
    metrics = request.app[METRICS].http
    method = request.method if request.method in hdrs.METH_ALL else "other"
    resource = request.match_info.route.resource
    route = resource.canonical if resource else "none"
    metrics.requests.labels(method, route, response.status).inc()
    if isinstance(response, web.Response) and resource and (arrived := request.get(ARRIVED)):
        metrics.duration.labels(method, route).observe(time.monotonic() - arrived)


async def watch_lag(lag: Histogram) -> None:
    """Measure how late the event loop is, for ever. uvloop's clock stands still meanwhile, so it is not asked."""
    while True:
        due = time.monotonic() + LAG_INTERVAL
        await asyncio.sleep(LAG_INTERVAL)
        lag.observe(max(0.0, time.monotonic() - due))
