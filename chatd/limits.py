"""What one owner may have: messages and requests a minute, turns and streams at once, tokens a day.

Turns and tokens are counted by the database, for all processes (begin_turn.sql, finish_turn.sql); the others by each
process for itself, here. Told in the headers of draft-ietf-httpapi-ratelimit-headers-10.
"""

import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from chatd.config import Config
from chatd.errors import RateLimited

MINUTE = 60
# Times the messages: so many new sessions, tickets, names and stops, or tables could be filled without end.
REQUESTS = 10
DAY = 86_400
TEXTS = {
    "messages": "Too many messages this minute.",
    "requests": "Too many requests this minute.",
    "turns": "Too many of your turns are running: wait for one to end, or stop it.",
    "streams": "You have too many streams open at once.",
    "tokens": "Today's tokens are used up; the next day begins at 00:00 UTC.",
}
USED = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
MOST_TOKENS = 10**9  # of each kind that are believed of a turn


@dataclass(frozen=True, slots=True)
class Quota:
    """How much an owner may have of something, in `window` seconds or (None) at once, and what is left of it.

    `wait`: the seconds after which there is more; of what is counted at once nobody knows.
    """

    name: str
    limit: int
    left: int
    window: int | None = None
    wait: float = 1.0

    @property
    def seconds(self) -> int:
        return max(1, math.ceil(self.wait))

    @property
    def policy(self) -> str:
        return f'"{self.name}";q={self.limit}' + (f";w={self.window}" if self.window else "")

    @property
    def state(self) -> str:
        return f'"{self.name}";r={max(0, self.left)}' + (f";t={self.seconds}" if self.window else "")


def headers_of(quotas: Iterable[Quota]) -> dict[str, str]:
    quotas = list(quotas)
    return {
        "RateLimit-Policy": ", ".join(quota.policy for quota in quotas),
        "RateLimit": ", ".join(quota.state for quota in quotas),
    }


def refusal(quota: Quota) -> RateLimited:
    """Return what an owner is told who has nothing left of a quota."""
    error = RateLimited(TEXTS[quota.name], {"Retry-After": str(quota.seconds), **headers_of([quota])})
    error.limit = quota.name
    return error


class AMinute:
    """So many in any minute, of each owner; only owners who were counted within the last one are remembered."""

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self.owners: OrderedDict[str, deque[float]] = OrderedDict()  # when each was counted; the latest owner is last

    def count(self, owner: str) -> Quota | None:
        """Count one more and return what is left; raises RateLimited, and then counts nothing."""
        if not self.limit:
            return None
        now = time.monotonic()
        self._forget_idle(now)
        times = self.owners.get(owner) or deque()
        while times and times[0] + MINUTE <= now:
            times.popleft()
        if len(times) >= self.limit:
            raise refusal(Quota(self.name, self.limit, 0, MINUTE, times[0] + MINUTE - now))
        times.append(now)
        self.owners[owner] = times
        self.owners.move_to_end(owner)
        return Quota(self.name, self.limit, self.limit - len(times), MINUTE, times[0] + MINUTE - now)

    def _forget_idle(self, now: float) -> None:
        while self.owners and next(iter(self.owners.values()))[-1] + MINUTE <= now:
            self.owners.popitem(last=False)


class AtOnce:
    """So many of each owner at once; owners who have none are not remembered."""

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self.held: Counter[str] = Counter()

    @contextmanager
    def hold(self, owner: str) -> Iterator[Quota | None]:
        """Hold one as long as the block runs; raises RateLimited."""
        if not self.limit:
            yield None
            return
        if self.held[owner] >= self.limit:
            raise refusal(Quota(self.name, self.limit, 0))
        self.held[owner] += 1
        try:
            yield Quota(self.name, self.limit, self.limit - self.held[owner])
        finally:
            self.held[owner] -= 1
            if not self.held[owner]:
                del self.held[owner]


class Limits:
    """What this process counts for itself."""

    def __init__(self, config: Config) -> None:
        self.messages = AMinute("messages", config.rate_messages)
        self.requests = AMinute("requests", REQUESTS * config.rate_messages)
        self.streams = AtOnce("streams", config.rate_streams)


class TurnLimits(NamedTuple):
    """What the database counts for an owner: turns at once, tokens a day; None: no limit."""

    turns: int | None = None
    tokens: int | None = None

    def quotas(self, turns_left: int | None = None, tokens_left: int | None = None) -> list[Quota]:
        """Return what is left: turns at once, tokens of the day, whichever are limited."""
        quotas = []
        if self.turns is not None and turns_left is not None:
            quotas.append(Quota("turns", self.turns, turns_left))
        if self.tokens is not None and tokens_left is not None:
            quotas.append(Quota("tokens", self.tokens, tokens_left, DAY, DAY - time.time() % DAY))
        return quotas


NO_LIMITS = TurnLimits()


def longest_refusal(quotas: Iterable[Quota]) -> RateLimited:
    """Return the refusal by the quota that is used up for longest."""
    return refusal(max((quota for quota in quotas if quota.left <= 0), key=lambda quota: quota.wait))


def count_tokens(usage: dict[str, Any] | None, shown: str = "") -> int:
    """Return the tokens, in and out, that a model's server has reported; what can't be is not believed.

    `shown`: text that broke off before the last report. It counts for four characters a token, at least.
    """
    read, written = (sum(believed((usage or {}).get(name)) for name in names) for names in (USED[:-1], USED[-1:]))
    return read + max(written, len(shown) // 4)


def believed(count: Any) -> int:
    return int(min(count, MOST_TOKENS)) if type(count) in (int, float) and count > 0 else 0
