"""Sweeping old events, idempotency keys, tickets and counts of tokens: in small batches, never a long lock."""

import asyncio
import logging

from chatd.crash import crash_point
from chatd.errors import Unavailable
from chatd.repo import Repo
from chatd.tickets import GRACE

logger = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds
PAUSE = 0.1  # seconds between two batches: others come first
TURNS = 100
EVENTS = 1000
KEYS = 1000
TICKETS = 1000
USAGE = 1000


async def sweep(repo: Repo, retention: float) -> None:
    """Sweep for ever; events are kept for `retention` seconds after their turn's end."""
    while True:
        try:
            await sweep_once(repo, retention)
        except Unavailable:
            pass
        except Exception:
            logger.exception("sweeping failed")
        await asyncio.sleep(INTERVAL)


async def sweep_once(repo: Repo, retention: float) -> None:
    while await repo.sweep_events(retention, TURNS, EVENTS):
        crash_point("after_sweep_events")
        await asyncio.sleep(PAUSE)
    while await repo.sweep_keys(KEYS) == KEYS:
        await asyncio.sleep(PAUSE)
    while await repo.sweep_tickets(TICKETS, GRACE) == TICKETS:
        await asyncio.sleep(PAUSE)
    while await repo.sweep_usage(USAGE) == USAGE:
        await asyncio.sleep(PAUSE)
