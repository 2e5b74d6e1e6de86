"""Sweeping old events, idempotency keys, tickets and counts of tokens: in small batches, never a long lock."""

import asyncio
import logging

from chatd.crash import crash_point
from chatd.errors import Unavailable
from chatd.repo import Repo
from chatd.tickets import GRACE

logger = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds
PAUSE = 0.05  # seconds between two batches: others come first
TURNS = 100
EVENTS = 2000
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
    """Sweep what there is, a batch of each kind in turn: one that grows as fast as it is swept holds up no other."""
    while await sweep_batches(repo, retention):
        await asyncio.sleep(PAUSE)


async def sweep_batches(repo: Repo, retention: float) -> bool:
    """Sweep a batch of each kind and tell whether there may be more of one."""
    if events := await repo.sweep_events(retention, TURNS, EVENTS):
        crash_point("after_sweep_events")
    keys = await repo.sweep_keys(KEYS)
    tickets = await repo.sweep_tickets(TICKETS, GRACE)
    usage = await repo.sweep_usage(USAGE)
    return events > 0 or keys == KEYS or tickets == TICKETS or usage == USAGE
