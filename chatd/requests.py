"""How a request is read: token, body, query, the id in its path, its key; what is wrong is named field by field."""

import asyncio
import json
import re
from typing import Any

from aiohttp import web
from marshmallow import Schema, ValidationError

from chatd.errors import InvalidRequest, NotFound, NoToken, TooLarge, Unauthorized, UnsupportedMediaType
from chatd.schemas import SESSION_ID
from chatd.sse import clean

MAX_BODY = 256 << 10  # bytes
MAX_NAMED, MAX_NAME = 20, 100  # wrong fields that an answer names, and how much of each name
BODY_TIMEOUT = 30.0  # seconds for 256 KiB
BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)
IDEMPOTENCY_KEY = re.compile(r'"([!-~]{1,255})"|([!#-~][!-~]{0,254})')


def bearer_token(request: web.Request) -> str:
    """Return the request's token (RFC 6750, 2.1); raises NoToken, Unauthorized."""
    given = request.headers.getall("Authorization", [])
    if not given:
        raise NoToken
    match = BEARER.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        raise Unauthorized
    return match[1]


async def read_body(request: web.Request, schema: type[Schema]) -> dict[str, Any]:
    """Return the checked body; raises UnsupportedMediaType, TooLarge (by aiohttp) and InvalidRequest."""
    if request.content_type != "application/json":
        raise UnsupportedMediaType
    if (request.content_length or 0) > MAX_BODY:
        raise TooLarge
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            body = await request.read()
        data = json.loads(body.decode("utf-8"), parse_constant=refuse_constant, object_pairs_hook=refuse_duplicates)
    except TimeoutError:
        raise InvalidRequest("The body did not arrive in time.") from None
    except web.RequestPayloadError:
        raise InvalidRequest("The body does not match its headers.") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not valid JSON in UTF-8.") from None
    if not isinstance(data, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return load(schema, data)


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members; of two with one name another reader might have taken the other."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name is there twice")
    return members


def read_query(request: web.Request, schema: type[Schema]) -> dict[str, Any]:
    return load(schema, dict(request.query))


def load(schema: type[Schema], data: Any) -> dict[str, Any]:
    """Return checked data; raises InvalidRequest with `errors`, a list of what is wrong for each field."""
    try:
        return dict(schema().load(data))
    except ValidationError as error:
        named = list(error.messages_dict.items())[:MAX_NAMED]
        errors = {clean(str(field))[:MAX_NAME]: reasons for field, reasons in named}
        detail = " ".join(f"{field}: {reasons[0]}" for field, reasons in errors.items())
        raise InvalidRequest(detail[:500], errors=errors) from None


def session_id_in(request: web.Request) -> str:
    """Return the path's session id; a malformed one can't exist."""
    return check_session_id(request.match_info["session_id"])


def check_session_id(session_id: str) -> str:
    if not SESSION_ID.fullmatch(session_id):
        raise NotFound
    return session_id


def idempotency_key(request: web.Request) -> str | None:
    """Return the key without its quotes, None where there is none; raises InvalidRequest."""
    given = request.headers.getall("Idempotency-Key", [])
    match = IDEMPOTENCY_KEY.fullmatch(given[0]) if len(given) == 1 else None
    if given and match is None:
        reason = "Must be one key of 1 to 255 visible ASCII characters."
        raise InvalidRequest(f"Idempotency-Key: {reason}", errors={"Idempotency-Key": [reason]})
    return match and (match[1] or match[2])
