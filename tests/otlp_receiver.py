"""A receiver of traces over a real socket: OTLP over HTTP, as a collector takes it."""

from dataclasses import dataclass
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Span:
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]
    text: str  # of all that it holds


class Receiver:
    """Keeps the spans that it is sent; answers with `status`."""

    url: str

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.status = 200

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self.runner.cleanup()

    def turns(self) -> list[Span]:
        return [span for span in self.spans if span.name == "turn"]

    def attempts(self, turn: Span) -> list[Span]:
        children = [span for span in self.spans if (span.trace, span.parent) == (turn.trace, turn.id)]
        return sorted(children, key=lambda span: int(span.attributes["chatd.attempt"]))

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.status == 200:
            self._keep(ExportTraceServiceRequest.FromString(body))
        return web.Response(status=self.status)

    def _keep(self, request: Any) -> None:
        for of_resource in request.resource_spans:
            resource = plain(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self.spans += [to_span(span, resource) for span in of_scope.spans]


def to_span(span: Any, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
        attributes=plain(span.attributes),
        resource=resource,
        text=str(span),
    )


def plain(attributes: Any) -> dict[str, Any]:
    return {attribute.key: value_of(attribute.value) for attribute in attributes}


def value_of(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [value_of(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)
