"""The typed keys under which the application and a request hold what handlers need."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from chatd.audit.writer import Audit
from chatd.config import Config
from chatd.journal import Journal
from chatd.limits import Limits, Quota
from chatd.llm import Llm
from chatd.metrics import Metrics
from chatd.mirrors import Mirrors
from chatd.models import Caller
from chatd.repo import Repo
from chatd.turns import Turns

if TYPE_CHECKING:
    from chatd.traces import Tracing

CheckToken = Callable[[str], Awaitable[Caller]]

CONFIG = web.AppKey("CONFIG", Config)
REPO = web.AppKey("REPO", Repo)
AUDIT = web.AppKey("AUDIT", Audit)
JOURNAL = web.AppKey("JOURNAL", Journal)
LLM = web.AppKey("LLM", Llm)
MIRRORS = web.AppKey("MIRRORS", Mirrors)
CHECK_TOKEN: web.AppKey[CheckToken] = web.AppKey("CHECK_TOKEN")  # there where the settings ask for tokens
TURNS = web.AppKey("TURNS", Turns)
TRACING: web.AppKey["Tracing"] = web.AppKey("TRACING")  # there where the settings ask for traces
LIMITS = web.AppKey("LIMITS", Limits)
METRICS = web.AppKey("METRICS", Metrics)

CALLER = web.RequestKey("CALLER", Caller)
ARRIVED = web.RequestKey("ARRIVED", float)  # by time.monotonic
REQUEST_ID = web.RequestKey("REQUEST_ID", str)
QUOTAS = web.RequestKey("QUOTAS", list[Quota])  # that the request was counted for
