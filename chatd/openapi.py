"""The API's description, OpenAPI 3.1: made once, when it is first asked for, of the router and chatd.operations."""

import json
import re
from functools import cache
from typing import Any

from aiohttp import web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema, fields

from chatd import __version__, responses
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
from chatd.operations import OPERATIONS, Answer, Operation
from chatd.schemas import IDEMPOTENCY_KEY, SESSION_ID_FORM, Text, Time, one_of

JsonObject = dict[str, Any]

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
SECURITY_SCHEMES: JsonObject = {
    "bearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "Of POST /agent/stream-ticket, for an EventSource, which can't send a token.",
    },
}
STRING = {"type": "string"}
PARAMETERS: dict[str, JsonObject] = {
    "path": {"in": "path", "required": True, "schema": STRING | {"minLength": 1}},
    "session_id": {"in": "path", "required": True, "schema": STRING | SESSION_ID_FORM},
    "Idempotency-Key": {
        "in": "header",
        "description": "For 24 hours the same key with the same body starts nothing new.",
        "schema": STRING | {"pattern": f"^(?:{IDEMPOTENCY_KEY.pattern})$"},
    },
    "Prefer": {
        "in": "header",
        "description": "`respond-async`: do not wait for the answer (RFC 7240).",
        "schema": STRING,
    },
    "Last-Event-ID": {
        "in": "header",
        "description": "The id of the last event that was seen. With one that can't be honoured all text comes again.",
        "schema": STRING,
    },
    "last_event_id": {
        "in": "query",
        "description": "The same, where no header can be sent; the header wins.",
        "schema": STRING,
    },
}
HEADERS: dict[str, JsonObject] = {
    "ETag": {"required": True, "schema": STRING},
    "X-Request-ID": {"required": True, "schema": STRING, "description": "The request's own, or a new one."},
    "WWW-Authenticate": {"required": True, "schema": STRING},
    "Retry-After": {"required": True, "schema": {"type": "integer"}, "description": "Seconds."},
    "Location": {"required": True, "schema": STRING},
    "RateLimit": {"schema": STRING, "description": "What is left, where there are limits."},
    "RateLimit-Policy": {"schema": STRING, "description": "The limits."},
    "Idempotency-Replayed": {"schema": {"const": "true"}, "description": "The key had begun this turn before."},
}
QUOTAS = ["RateLimit", "RateLimit-Policy"]
PROBLEM_HEADERS = {401: ["WWW-Authenticate"], 429: ["Retry-After", *QUOTAS], 503: ["Retry-After"]}


@cache
def build_document(auth: str) -> bytes:
    """Return the document for a server with this CHATD_AUTH."""
    return json.dumps(Builder(auth).build(), ensure_ascii=False, separators=(",", ":")).encode()


class Builder:
    """Makes the document; marshmallow's schemas become components by being named."""

    def __init__(self, auth: str) -> None:
        self.auth = auth
        self.marshmallow = MarshmallowPlugin(schema_name_resolver=schema_name)
        info = {"description": DESCRIPTION}
        self.spec = APISpec("chatd", __version__, "3.1.0", info=info, plugins=[self.marshmallow])
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
        self.spec.components.schema("Document", {"type": "object"})
        self.spec.components.schema("File", {"type": "string"})
        for route in ROUTES:
            assert isinstance(route, web.RouteDef)
            operation = OPERATIONS[route.method, route.path]
            self.spec.path(
                REGEX.sub("", route.path), operations={route.method.lower(): self._describe(route, operation)}
            )
        return self.spec.to_dict()

    def _add_events(self) -> None:
        """Add what each event of a stream is; its data is the JSON of one of several things."""
        for kind in responses.EVENTS:
            self.spec.components.schema(schema_name(kind), schema=kind)
        one_of = [{"$ref": f"#/components/schemas/{schema_name(kind)}"} for kind in responses.EVENTS]
        data = STRING | {"contentMediaType": "application/json", "contentSchema": {"oneOf": one_of}}
        event_id = STRING | {"pattern": r"^turn-[0-9a-f]{32}\.[0-9]+$"}
        event = {"type": "object", "properties": {"id": event_id, "data": data}, "required": ["id", "data"]}
        self.spec.components.schema("StreamEvent", event)

    def _describe(self, route: web.RouteDef, operation: Operation) -> JsonObject:
        described: JsonObject = {
            "operationId": route.handler.__name__,
            "summary": operation.summary,
            "security": self._security(route, operation),
            "parameters": self._parameters(route, operation),
            "responses": self._answers(operation) | self._problems(route, operation),
        }
        if operation.body is not None:
            content = {"schema": operation.body} | ({"example": operation.example} if operation.example else {})
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

    def _answers(self, operation: Operation) -> JsonObject:
        return {str(status): self._answer(answer) for status, answer in operation.answers.items()}

    def _answer(self, answer: Answer) -> JsonObject:
        content = {} if answer.schema is None else {"content": {answer.media_type: {"schema": answer.schema}}}
        return {"description": answer.description, "headers": headers(*answer.headers), **content}

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


def problem_response(errors: list[Any]) -> JsonObject:
    schemas = [problem_schema(error) for error in errors]
    return {
        "description": " / ".join(error.detail for error in errors),
        "headers": headers(*PROBLEM_HEADERS.get(errors[0].status, ())),
        "content": {"application/problem+json": {"schema": schemas[0] if len(errors) == 1 else {"oneOf": schemas}}},
    }


@cache
def problem_schema(error: Any) -> type[Schema]:
    """Return the schema of an error's problem document."""
    status = fields.Integer(required=True, metadata={"enum": [error.status]})
    known: dict[str, fields.Field[Any]] = {"status": status, "code": one_of(error.code)}
    return PROBLEMS.get(error, responses.Problem).from_dict(known, name=f"{error.__name__}Problem")


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
