"""The document: made once, when it is first asked for, of the router and the rows of chatd.openapi.operations."""

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from aiohttp import web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema, fields

from chatd import __version__
from chatd.app import ROUTES
from chatd.errors import (
    ChatdError,
    Forbidden,
    InvalidRequest,
    TooLarge,
    TurnInProgress,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UpstreamFailed,
)
from chatd.middlewares import is_public
from chatd.openapi import examples, responses
from chatd.openapi.operations import OPERATIONS
from chatd.openapi.parameters import HEADERS, PARAMETERS, PROBLEM_HEADERS, SECURITY_SCHEMES, STRING, JsonObject
from chatd.openapi.row_types import TAGS, Operation, ResponseInfo
from chatd.schemas import Text, Time, one_of

DESCRIPTION = """Durable LLM chat. Errors are problem documents (RFC 9457) with a stable `code`. A method that a path
does not take is answered with 405 and `Allow`; HEAD is taken where GET is, but for streams. An integer is written as
one: 1, not 1.0."""

REGEX = re.compile(r"(?<=\w):[^}]+")  # behind the name of a part of a route's path
# What str.strip() takes for blank, in words that every dialect of regular expressions has.
NOT_BLANK = r"[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"

PROBLEMS: dict[type[ChatdError], type[Schema]] = {
    TurnInProgress: responses.TurnProblem,
    UpstreamFailed: responses.AnswerProblem,
}
EVENTS_URL = "https://html.spec.whatwg.org/multipage/server-sent-events.html"
EXTERNAL = {"chat": {"externalDocs": {"description": "What a stream is", "url": EVENTS_URL}}}


@cache
def build_document(auth: str) -> bytes:
    """Return the document for a server with this CHATD_AUTH."""
    return json.dumps(Builder(auth).build(), ensure_ascii=False, separators=(",", ":")).encode()


class Builder:
    """Makes the document; marshmallow's schemas become components by being named."""

    def __init__(self, auth: str) -> None:
        self.auth = auth
        self.marshmallow = MarshmallowPlugin(schema_name_resolver=schema_name)
        info = {"summary": "Durable LLM chat over plain HTTP", "description": DESCRIPTION}
        servers = [{"url": "/", "description": "The server that this came from, where it has no path in front."}]
        self.spec = APISpec("chatd", __version__, "3.1.0", info=info, servers=servers, plugins=[self.marshmallow])
        converter: Any = self.marshmallow.converter  # typed in part only
        self.converter = converter
        converter.map_to_openapi_type(Time, "string", "date-time")
        converter.add_attribute_function(limits_of_text)

    def build(self) -> JsonObject:
        for name, part in SECURITY_SCHEMES.items():
            self.spec.components.security_scheme(name, part)
        for name, part in HEADERS.items():
            self.spec.components.header(name, part)
        self._add_events()
        self.spec.components.schema("Document", {"type": "object", "description": "An OpenAPI document."})
        self.spec.components.schema("File", {"type": "string", "description": "A file as it is."})
        for name, description in TAGS.items():
            self.spec.tag({"name": name, "description": description} | EXTERNAL.get(name, {}))
        for route in ROUTES:
            assert isinstance(route, web.RouteDef)
            operation = OPERATIONS[route.method, route.path]
            self.spec.path(
                REGEX.sub("", route.path), operations={route.method.lower(): self._describe(route, operation)}
            )
        return self._described(self.spec.to_dict())

    def _described(self, document: JsonObject) -> JsonObject:
        """Say of each component what its schema's docstring says."""
        for (schema, *_), name in self.converter.refs.items():
            document["components"]["schemas"][name]["description"] = schema.__doc__
        return document

    def _add_events(self) -> None:
        """Add what each event of a stream is; its data is the JSON of one of several things."""
        event_id = STRING | {
            "pattern": r"^turn-[0-9a-f]{32}\.[0-9]+$",
            "description": "The turn, and the event's number.",
        }
        self._add_event("StreamEvent", "One event of a stream.", responses.EVENTS, {"id": event_id})
        self._add_event("TestEvent", "One event of a test of streams.", responses.TEST_EVENTS, {})

    def _add_event(self, name: str, description: str, kinds: Sequence[type[Schema]], properties: JsonObject) -> None:
        for kind in kinds:
            self.spec.components.schema(schema_name(kind), schema=kind)
        one_of = [{"$ref": f"#/components/schemas/{schema_name(kind)}"} for kind in kinds]
        data = STRING | {
            "description": "JSON, on one line: what happened.",
            "contentMediaType": "application/json",
            "contentSchema": {"oneOf": one_of},
        }
        properties = {**properties, "data": data}
        described = {"type": "object", "description": description, "properties": properties}
        self.spec.components.schema(name, {**described, "required": list(properties)})

    def _describe(self, route: web.RouteDef, operation: Operation) -> JsonObject:
        described: JsonObject = {
            "operationId": route.handler.__name__,
            "tags": [operation.tag],
            "summary": operation.summary,
            "description": operation.description,
            "security": self._security(route, operation),
            "parameters": self._parameters(route, operation),
            "responses": self._responses(route, operation) | self._problems(route, operation),
        }
        if operation.body is not None:
            content = {"schema": operation.body} | named(examples.REQUESTS.get(route.handler.__name__, {}))
            described["requestBody"] = {"required": True, "content": {"application/json": content}}
        return described

    def _security(self, route: web.RouteDef, operation: Operation) -> list[JsonObject]:
        if is_public(route.path):
            return []
        schemes: list[JsonObject] = [{"bearerAuth": []}, *([{"ticket": []}] if operation.ticket else [])]
        return [*schemes, {}] if self.auth == "none" or operation.local else schemes

    def _parameters(self, route: web.RouteDef, operation: Operation) -> list[JsonObject]:
        in_path = ["session_id"] if "{session_id}" in route.path else []
        given = [{"name": name, **PARAMETERS[name]} for name in (*in_path, *operation.parameters)]
        if operation.query is not None:
            given += self.converter.schema2parameters(operation.query, location="query")
        return given

    def _responses(self, route: web.RouteDef, operation: Operation) -> JsonObject:
        shown = {status: examples.RESPONSES.get((route.handler.__name__, status), {}) for status in operation.responses}
        return {str(status): response_of(response, shown[status]) for status, response in operation.responses.items()}

    def _problems(self, route: web.RouteDef, operation: Operation) -> JsonObject:
        """Return a response for each status; a status may have several codes."""
        by_status: dict[int, list[type[ChatdError]]] = {}
        for error in (*self._common_errors(route, operation), *operation.errors):
            if error not in by_status.setdefault(error.status, []):
                by_status[error.status].append(error)
        return {str(status): problem_response(errors) for status, errors in sorted(by_status.items())}

    def _common_errors(self, route: web.RouteDef, operation: Operation) -> list[type[ChatdError]]:
        errors: list[type[ChatdError]] = [InvalidRequest]  # what is no HTTP, too, such as a header that is too long
        if self.auth == "none":
            errors.append(Forbidden)
        elif not is_public(route.path):
            errors += [Unauthorized, Unavailable]
        if operation.body is not None:
            errors += [TooLarge, UnsupportedMediaType]
        return errors


def response_of(response: ResponseInfo, shown: JsonObject) -> JsonObject:
    described = {"description": response.description, "headers": headers(*response.headers)}
    if response.schema is None:
        return described
    return described | {"content": {response.media_type: {"schema": response.schema} | named(shown)}}


def named(values: JsonObject) -> JsonObject:
    """Return what a media type says of its examples."""
    return {"examples": {name: {"value": value} for name, value in values.items()}} if values else {}


def problem_response(errors: list[Any]) -> JsonObject:
    schemas = [problem_schema(error) for error in errors]
    shown = {name: value for error in errors for name, value in examples.problems_of(error).items()}
    return {
        "description": " / ".join(error.detail for error in errors),
        "headers": headers(*PROBLEM_HEADERS.get(errors[0].status, ())),
        "content": {
            "application/problem+json": {"schema": schemas[0] if len(errors) == 1 else {"oneOf": schemas}}
            | named(shown)
        },
    }


@cache
def problem_schema(error: Any) -> type[Schema]:
    """Return the schema of an error's problem document."""
    status = responses.required(fields.Integer, "The status.", enum=[error.status])
    code = one_of(error.code, description="What is wrong, for programs: it does not change.")
    known: dict[str, fields.Field[Any]] = {"status": status, "code": code}
    made = PROBLEMS.get(error, responses.Problem).from_dict(known, name=f"{error.__name__}Problem")
    made.__doc__ = error.detail
    return made


def schema_name(schema: Any) -> str:
    kind = schema if isinstance(schema, type) else type(schema)
    return kind.__name__.removesuffix("Schema")


def headers(*names: str) -> JsonObject:
    return {name: name for name in ("X-Request-ID", *names)}


def limits_of_text(_converter: Any, field: fields.Field[Any], **_: Any) -> JsonObject:
    """Return what JSON Schema is told of a Text, by apispec's rules for such functions."""
    if not isinstance(field, Text):
        return {}
    return (
        {"maxLength": field.limit} if field.blank else {"minLength": 1, "maxLength": field.limit, "pattern": NOT_BLANK}
    )
