"""Notices between the processes that share a database: a kind, and the turns that it is about.

They only save waiting: what one does not hear, it finds when it looks the next time.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from chatd.errors import Unavailable
from chatd.logs import describe
from chatd.repo import Repo

logger = logging.getLogger(__name__)

RETRY = 1.0  # seconds between two tries to listen

Hear = Callable[[Sequence[str]], None]


async def listen(repo: Repo, kinds: Mapping[str, Hear]) -> None:
    """Hear notices for ever, and have each handled by its kind; unknown ones are a newer version's."""

    def hear(notice: str) -> None:
        kind, *turn_ids = notice.split()
        if kind in kinds:
            kinds[kind](turn_ids)

    while True:
        try:
            await repo.listen(hear)
        except Unavailable as error:
            logger.debug("can't listen for notices from other processes: %s", describe(error.__cause__))
        except Exception:
            logger.exception("can't listen for notices from other processes")
        await asyncio.sleep(RETRY)
