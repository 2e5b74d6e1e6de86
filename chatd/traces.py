"""Traces by OpenTelemetry, where the settings ask for them: a span a turn, and in it one an attempt.

The names are those of https://github.com/open-telemetry/semantic-conventions-genai, so far as it has one; nothing that
anybody wrote is in a span. Only this module imports the SDK, and nobody imports this one unless there is an endpoint.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from opentelemetry import context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chatd import __version__
from chatd.config import Config
from chatd.errors import ConfigError, Handler
from chatd.failures import UpstreamError
from chatd.llm import ANTHROPIC
from chatd.log_events import log_event
from chatd.models import Turn
from chatd.parsing import place_of
from chatd.reply import Reply
from chatd.turn_report import count_kinds, known_model

logger = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT = 0.5  # seconds that the last spans get; what is not taken then is lost
SERVICE = Resource({"service.name": "chatd", "service.version": __version__})
REASONS = {"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"}


class Exporter(SpanExporter):
    """Sends spans by OTLP over HTTP, from the SDK's thread; says once that they are not taken, not for each try."""

    def __init__(self, endpoint: str) -> None:
        self.place, self.away = place_of(endpoint), False
        self.sender = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self.sender.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away and not self.away:
            log_event(logger, logging.WARNING, "traces.away", "%(server)s does not take traces", server=self.place)
        elif self.away and not away:
            log_event(logger, logging.WARNING, "traces.back", "%(server)s takes traces again", server=self.place)
        self.away = away
        return result

    def shutdown(self) -> None:
        self.sender.shutdown()  # type: ignore[no-untyped-call]


@web.middleware
async def follow_trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Make what a request begins a part of its caller's trace; the request's task has a context of its own."""
    if given := request.headers.get("traceparent"):
        context.attach(TraceContextTextMapPropagator().extract({"traceparent": given}))
    return await handler(request)


@asynccontextmanager
async def open_tracing(config: Config) -> AsyncIterator["Tracing"]:
    """Send spans until the block ends, and those that are left then for a moment more."""
    provider = make_provider(str(config.otlp_endpoint))
    try:
        yield Tracing(config, provider)
    finally:
        ending = threading.Thread(target=provider.shutdown, daemon=True)  # it may wait for half a minute
        ending.start()
        deadline = time.monotonic() + SHUTDOWN_TIMEOUT
        while ending.is_alive() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)


def make_provider(endpoint: str) -> TracerProvider:
    """Return what makes spans and sends them; the SDK reads OTEL_… variables itself."""
    # The SDK repeats headers, and tells of each try: Exporter says what is to be said.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    resource = Resource.create().merge(SERVICE).merge(OTELResourceDetector().detect())
    try:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(Exporter(endpoint)))
    except ValueError as error:
        raise ConfigError(f"a setting of OpenTelemetry (OTEL_…) is wrong: {error}") from error
    return provider


class Tracing:
    """Makes the spans of turns."""

    def __init__(self, config: Config, provider: TracerProvider) -> None:
        self.model = config.model
        self.tracer = provider.get_tracer("chatd", __version__)
        self.call: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "llama.cpp" if config.is_local_model else "anthropic",
            "gen_ai.request.model": config.model,
            "gen_ai.request.max_tokens": config.max_tokens,
            "gen_ai.request.stream": True,
            **({} if config.is_local_model else address_of(config.base_url or ANTHROPIC)),
        }

    def begin(self, turn: Turn) -> "TurnSpan":
        """Begin a turn's span, in the trace of the request that begins it, if that has one."""
        return TurnSpan(self, turn)


def address_of(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname, "server.port": port}


class TurnSpan:
    """The span of a turn in this process, and those of its attempts."""

    def __init__(self, tracing: Tracing, turn: Turn) -> None:
        self.tracing = tracing
        self.conversation: dict[str, Any] = {"gen_ai.conversation.id": turn.session_id}
        own = {"chatd.turn.id": turn.id, "chatd.turn.recoveries": turn.recoveries}
        kind = SpanKind.INTERNAL if turn.recoveries else SpanKind.SERVER
        self.span = tracing.tracer.start_span("turn", kind=kind, attributes=self.conversation | own)

    @contextmanager
    def attempt(self, number: int, reply: Reply) -> Iterator[None]:
        """Make a span of an attempt: a call of the model's server."""
        tracing = self.tracing
        span = tracing.tracer.start_span(
            f"chat {tracing.model}",
            context=set_span_in_context(self.span),
            kind=SpanKind.CLIENT,
            attributes=tracing.call | self.conversation | {"chatd.attempt": number},
        )
        try:
            yield
        except UpstreamError as error:
            span.set_attribute("error.type", error.code)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.set_attributes(attributes_of(reply))
            span.end()

    def end(self, outcome: str, code: str | None = None, attempts: int | None = None) -> None:
        """End the span: `outcome` as in the log's event turn.ended, or what became of the turn elsewhere."""
        self.span.set_attribute("chatd.turn.outcome", outcome)
        if attempts is not None:
            self.span.set_attribute("chatd.turn.attempts", attempts)
        if code:
            self.span.set_attribute("error.type", code)
            self.span.set_status(StatusCode.ERROR)
        self.span.end()


def attributes_of(reply: Reply) -> dict[str, Any]:
    """Return what is known of an attempt's answer: only numbers and names. Input tokens are all, cached ones, too."""
    if not reply.attempt_usage:  # nothing came
        return {}
    counts = count_kinds(reply.attempt_usage)
    read, created = counts["cache_read_input_tokens"] or 0, counts["cache_creation_input_tokens"] or 0
    told = {
        "gen_ai.usage.input_tokens": (counts["input_tokens"] or 0) + read + created,
        "gen_ai.usage.cache_read.input_tokens": read,
        "gen_ai.usage.cache_creation.input_tokens": created,
        "gen_ai.usage.output_tokens": counts["output_tokens"] or 0,
    }
    if model := known_model(reply.model):
        told["gen_ai.response.model"] = model
    if reply.stop_reason in REASONS:
        told["gen_ai.response.finish_reasons"] = [reply.stop_reason]
    return told
