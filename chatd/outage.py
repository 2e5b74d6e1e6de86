"""Whether the database is away: told when the first one notices, and when all that waits to be written can be."""

import asyncio
import logging

from chatd.errors import Unavailable
from chatd.log_events import log_event
from chatd.logs import describe

logger = logging.getLogger(__name__)


class Outage:
    """Who can go on says nothing of the others: a full disk can be read, a locked table holds up those who need it.

    So it lasts for as long as a writer waits. Who only looks, without a name here, ends it when none does.
    """

    def __init__(self) -> None:
        self.since: float | None = None  # by the loop's clock
        self.writers: set[object] = set()  # that wait
        self.now = asyncio.get_running_loop().time

    def notice(self, error: Unavailable, writer: object | None = None) -> None:
        if writer:
            self.writers.add(writer)
        if self.since is None:
            self.since = self.now()
            away = "database away, holding what is not written: %(reason)s"
            log_event(logger, logging.WARNING, "database.away", away, reason=describe(error.__cause__))

    def leave(self, writer: object) -> None:
        """Wait no longer, which does not say that the database is back."""
        self.writers.discard(writer)

    def go_on(self, writer: object | None = None) -> None:
        """The database has done what it was asked; it is news only of a writer that has waited."""
        if writer and writer not in self.writers:
            return
        self.leave(writer)
        if self.since is not None and not self.writers:
            seconds = round(self.now() - self.since, 3)
            log_event(logger, logging.WARNING, "database.back", "database back", seconds=seconds)
            self.since = None
