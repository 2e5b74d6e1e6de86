"""What Prometheus is told of a process: every metric, on a registry of its own; who observes holds the part it moves.

Labels have few values: no owner, no id, no path, nothing that a client or a model's server makes up without end.
"""

import re
import time
from collections.abc import Iterable, Mapping
from platform import python_version
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from chatd import __version__
from chatd.failures import TEXTS as FAILURES
from chatd.limits import TEXTS as LIMITS
from chatd.limits import USED, believed
from chatd.parsing import MODEL, Price

if TYPE_CHECKING:
    from chatd.mirrors import Mirrors
    from chatd.turns import Turns

# Upper bounds of histograms, in seconds but for ROWS.
DATABASE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LOOP = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
ANSWERS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120)
TURNS = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 900)
CLIENTS = (0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 20, 60)
REQUESTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

KINDS = dict(zip(("input", "cache_write", "cache_read", "output"), USED, strict=True))  # of tokens: their name upstream
DATED = re.compile(r"[-@][0-9]{8}$")  # a model's release, behind the name that it is priced by
MAX_MODELS = 50  # names of models that are told apart

# They would be a series more for each counter and histogram, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Tally(Collector):
    """A counter for what happens with each piece: adding to `count` takes no lock, and so a fraction of the time."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self.name, self.documentation, self.count = name, documentation, 0
        registry.register(self)

    def collect(self) -> Iterable[CounterMetricFamily]:
        return [CounterMetricFamily(self.name, self.documentation, value=self.count)]

    describe = collect


class TurnMetrics:
    """The turns that this process begins, takes over and ends."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.begun = Counter("chatd_turns_begun", "Turns that were begun here.", registry=registry)
        self.ended = Counter("chatd_turns", "Turns that ended here.", ["outcome", "code"], registry=registry)
        self.lost = Counter(
            "chatd_turns_lost",
            "Turns that this process lost: to another one, or deleted.",
            registry=registry,
        )
        self.recoveries = Counter("chatd_recoveries", "Turns that were taken over from others.", registry=registry)
        self.retries = Counter(
            "chatd_retries", "Attempts after the first, by what failed before.", ["reason"], registry=registry
        )
        self.first_content = Histogram(
            "chatd_first_content_seconds", "From a turn's begin to its first text.", buckets=ANSWERS, registry=registry
        )
        self.duration = Histogram(
            "chatd_turn_duration_seconds", "From begin to end.", ["outcome"], buckets=TURNS, registry=registry
        )
        self.running = Gauge("chatd_turns_running", "Turns that run here.", registry=registry)
        self.readers = Gauge("chatd_readers", "Who reads or waits for turns that run.", registry=registry)
        self.draining = Gauge("chatd_draining", "1 while the process shuts down.", registry=registry)
        for outcome in ("done", "stopped"):
            self.ended.labels(outcome, "ok")
        for code in FAILURES:
            self.ended.labels("failed", code)
            if code.startswith("upstream_"):
                self.retries.labels(code)

    def watch(self, turns: "Turns", mirrors: "Mirrors") -> None:
        """Have the gauges tell of these when they are asked for."""
        logs = (turns.running, mirrors.mirrors)
        self.running.set_function(lambda: len(turns.running))
        self.readers.set_function(lambda: sum(len(one.log.readers) for each in logs for one in each.values()))
        self.draining.set_function(lambda: turns.draining)

    def end(self, outcome: str, code: str, seconds: float) -> None:
        self.ended.labels(outcome, code).inc()
        self.duration.labels(outcome).observe(seconds)


class JournalMetrics:
    """The way of text to the database, and from there to those who read."""

    def __init__(self, registry: CollectorRegistry, errors: Counter) -> None:
        self.errors = errors
        self.pieces = Tally("chatd_pieces", "Pieces of text from the model.", registry)
        self.rows = Histogram("chatd_commit_rows", "Events in a group commit.", buckets=ROWS, registry=registry)
        self.duration = Histogram(
            "chatd_commit_duration_seconds", "How long a group commit took.", buckets=DATABASE, registry=registry
        )
        self.delay = Histogram(
            "chatd_commit_delay_seconds",
            "From the arrival of a group commit's first piece to its commit.",
            buckets=DATABASE,
            registry=registry,
        )
        self.push = Histogram(
            "chatd_push_duration_seconds",
            "From a group commit to its having been written to all connections that took it at once.",
            buckets=LOOP,
            registry=registry,
        )
        self.write_wait = Histogram(
            "chatd_write_wait_seconds",
            "How long a stream that did not take its events at once took to.",
            buckets=CLIENTS,
            registry=registry,
        )
        self.uncommitted = Gauge("chatd_uncommitted_characters", "Text that waits for its commit.", registry=registry)
        self.age = Gauge("chatd_uncommitted_age_seconds", "How long the oldest of it has waited.", registry=registry)
        self.away = Gauge("chatd_database_away", "1 while a write is tried again and again.", registry=registry)

    def commit(self, rows: int, arrived: float, begun: float, committed: float) -> None:
        """Take in a group commit that was just shown: when its first piece came, and when it was begun and done."""
        self.rows.observe(rows)
        self.duration.observe(committed - begun)
        self.delay.observe(committed - arrived)
        self.push.observe(time.monotonic() - committed)


class ModelMetrics:
    """What the model's server says that was used, and what that costs."""

    def __init__(self, registry: CollectorRegistry, model: str, prices: Mapping[str, Price]) -> None:
        self.prices, self.known = prices, {model, *prices}
        self.tokens = Counter("chatd_tokens", "Tokens used.", ["model", "kind"], registry=registry)
        self.cost = Counter("chatd_cost_usd", "US dollars, of models with a price.", ["model"], registry=registry)

    def spend(self, model: str, usage: dict[str, Any] | None) -> None:
        """Count what the attempts of a turn used."""
        used = {kind: believed((usage or {}).get(name)) for kind, name in KINDS.items()}
        name = self._name(model)
        for kind in filter(used.__getitem__, used):
            self.tokens.labels(name, kind).inc(used[kind])
        if price := self.prices.get(model) or self.prices.get(DATED.sub("", model)):
            self.cost.labels(name).inc(sum(getattr(price, kind) * count for kind, count in used.items()) / 1e6)

    def _name(self, model: str) -> str:
        """Return the name to count a model by: the server may call it anything."""
        if model not in self.known and len(self.known) < MAX_MODELS and MODEL.fullmatch(model):
            self.known.add(model)
        return model if model in self.known else "other"


class DatabaseMetrics:
    """The pool of connections."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.wait = Histogram(
            "chatd_pool_wait_seconds", "Waits for a connection of the pool.", buckets=DATABASE, registry=registry
        )
        self.waiting = Gauge("chatd_pool_waiting", "Who waits for a connection now.", registry=registry)
        self.connections = Gauge("chatd_pool_connections", "Connections of the pool.", registry=registry)
        self.in_use = Gauge("chatd_pool_connections_in_use", "Those that are in use.", registry=registry)


class HttpMetrics:
    """Requests and streams."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "chatd_http_requests", "Requests that were answered.", ["method", "route", "status"], registry=registry
        )
        self.duration = Histogram(
            "chatd_http_request_duration_seconds",
            "From a request to its answer, but for streams.",
            ["method", "route"],
            buckets=REQUESTS,
            registry=registry,
        )
        self.streams = Gauge("chatd_streams_open", "Streams that are open.", registry=registry)
        self.limits = Counter("chatd_limits_reached", "Requests refused by a limit.", ["limit"], registry=registry)
        for limit in (*LIMITS, "process_turns"):
            self.limits.labels(limit)


class Metrics:
    """All of them, `registry` to be exposed."""

    def __init__(self, model: str = "", prices: Mapping[str, Price] | None = None) -> None:
        registry = self.registry = CollectorRegistry()
        self.errors = Counter("chatd_errors", "What failed in an unexpected way.", registry=registry)
        self.turns, self.journal = TurnMetrics(registry), JournalMetrics(registry, self.errors)
        self.model = ModelMetrics(registry, model, prices or {})
        self.database, self.http = DatabaseMetrics(registry), HttpMetrics(registry)
        self.lag = Histogram(
            "chatd_event_loop_lag_seconds", "How late the event loop wakes a task.", buckets=LOOP, registry=registry
        )
        ProcessCollector(registry=registry)
        build = Info("chatd_build", "What runs.", registry=registry)
        build.info({"version": __version__, "python": python_version()})
