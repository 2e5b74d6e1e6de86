"""What requests and answers have beside their bodies, for the API's description: parameters, headers, credentials."""

from typing import Any

from chatd.openapi.examples import SESSION, TURN
from chatd.requests import IDEMPOTENCY_KEY
from chatd.schemas import SESSION_ID_FORM

JsonObject = dict[str, Any]

STRING = {"type": "string"}
SECURITY_SCHEMES: JsonObject = {
    "bearerAuth": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token with `sub`, whom it speaks for, and `exp`.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "Of POST /agent/stream-ticket, for an EventSource, which can't send a token.",
    },
}
PARAMETERS: dict[str, JsonObject] = {
    "path": {
        "in": "path",
        "required": True,
        "description": "The file's place among the page's files.",
        "schema": STRING | {"minLength": 1},
        "example": "app.js",
    },
    "session_id": {
        "in": "path",
        "required": True,
        "description": "The session; one that is not yours looks like one that does not exist.",
        "schema": STRING | SESSION_ID_FORM,
        "example": SESSION,
    },
    "Idempotency-Key": {
        "in": "header",
        "description": "For 24 hours the same key with the same body starts nothing new: it is answered with its turn.",
        "schema": STRING | {"pattern": f"^(?:{IDEMPOTENCY_KEY.pattern})$"},
        "example": "7c1e6f0a",
    },
    "Prefer": {
        "in": "header",
        "description": "`respond-async`: do not wait for the answer (RFC 7240).",
        "schema": STRING,
        "example": "respond-async",
    },
    "Last-Event-ID": {
        "in": "header",
        "description": "The id of the last event that was seen. With one that can't be honoured all text comes again.",
        "schema": STRING,
        "example": f"{TURN}.2",
    },
    "last_event_id": {
        "in": "query",
        "description": "The same, where no header can be sent; the header wins.",
        "schema": STRING,
        "example": f"{TURN}.1",
    },
}
HEADERS: dict[str, JsonObject] = {
    "ETag": {
        "required": True,
        "description": "For If-None-Match, to get what has changed only.",
        "schema": STRING,
        "example": '"3f2a9c41d06b7e58"',
    },
    "X-Request-ID": {
        "required": True,
        "description": "The request's own (`[A-Za-z0-9._-]{1,128}`), or a new one: look for it in the log.",
        "schema": STRING,
        "example": "49ee0e299381c69a556a5cda435109dc",
    },
    "WWW-Authenticate": {
        "required": True,
        "description": "How to sign in (RFC 6750).",
        "schema": STRING,
        "example": "Bearer",
    },
    "Retry-After": {
        "required": True,
        "description": "Seconds to wait before the request is sent again.",
        "schema": {"type": "integer"},
        "example": 2,
    },
    "Location": {
        "required": True,
        "description": "Where to go on: the turn's stream, or the session.",
        "schema": STRING,
        "example": f"/agent/chat/stream/{SESSION}",
    },
    "RateLimit": {
        "description": "What is left, where there are limits.",
        "schema": STRING,
        "example": '"messages";r=59;t=60, "turns";r=3',
    },
    "RateLimit-Policy": {
        "description": "The limits.",
        "schema": STRING,
        "example": '"messages";q=60;w=60, "turns";q=4',
    },
    "Idempotency-Replayed": {
        "description": "The key had begun this turn before.",
        "schema": {"const": "true"},
        "example": "true",
    },
}
QUOTAS = ["RateLimit", "RateLimit-Policy"]
PROBLEM_HEADERS = {401: ["WWW-Authenticate"], 429: ["Retry-After", *QUOTAS], 503: ["Retry-After"]}
