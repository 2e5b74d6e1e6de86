"""GET /openapi.json explains all that it names, and what it shows as examples is true."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator

from chatd.errors import ChatdError
from chatd.openapi.document import build_document
from chatd.openapi.examples import FAILURES, RESPONSES
from chatd.openapi.operations import OPERATIONS
from chatd.openapi.responses import EVENTS
from chatd.openapi.row_types import TAGS
from tests.chat_client import Chat
from tests.conftest import Start
from tests.model_server import Exchange, ModelServer, fails
from tests.sse_client import read_all
from tests.token_provider import SECRET, bearer, token

DOCUMENT = json.loads(build_document("jwt"))
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS_HERE = {
    operation["operationId"]: operation for path in DOCUMENT["paths"].values() for operation in path.values()
}
NO_JSON = {"post_stream", "get_stream", "get_stream_test", "get_document", "get_metrics"}  # or none of its own
TEXTS = ("text/html", "image/x-icon", "*/*")  # what a browser shows, and no program reads


def agrees(value: Any, schema: Any) -> bool:
    """Tell whether a value is as a schema of the document says."""
    return bool(OAS31Validator({**schema, "components": DOCUMENT["components"]}).is_valid(value))


def media_types() -> Iterator[tuple[str, str, Any]]:
    """Yield all that is sent and answered: whose it is, its media type, and what is said of it."""
    for name, operation in OPERATIONS_HERE.items():
        parts = {"request": operation["requestBody"]} if "requestBody" in operation else {}
        for part, described in (parts | operation["responses"]).items():
            for media_type, content in described.get("content", {}).items():
                yield f"{name} {part}", media_type, content


MEDIA_TYPES = {where: (media_type, content) for where, media_type, content in media_types()}


@pytest.mark.parametrize("name", OPERATIONS_HERE)
def test_every_operation_is_explained(name: str) -> None:
    operation = OPERATIONS_HERE[name]
    assert operation["summary"]
    assert operation["description"].endswith(".")
    assert set(operation["tags"]) <= set(TAGS)
    for parameter in operation["parameters"]:
        assert parameter["description"].endswith("."), parameter
    for status, answer in operation["responses"].items():
        assert answer["description"], status


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_explained(name: str) -> None:
    assert SCHEMAS[name]["description"].endswith("."), name
    for field, described in SCHEMAS[name].get("properties", {}).items():
        assert described["description"].endswith("."), field


def test_headers_tags_and_credentials_are_explained() -> None:
    components = DOCUMENT["components"]
    explained = [*components["headers"].values(), *components["securitySchemes"].values(), *DOCUMENT["tags"]]
    assert all(part["description"].endswith(".") for part in explained)
    assert {tag["name"] for tag in DOCUMENT["tags"]} == {operation.tag for operation in OPERATIONS.values()}


@pytest.mark.parametrize("where", MEDIA_TYPES)
def test_every_body_has_examples_that_are_as_their_schema_says(where: str) -> None:
    media_type, content = MEDIA_TYPES[where]
    if media_type in TEXTS:
        return
    assert content["examples"]
    for example in content["examples"].values():
        assert agrees(example["value"], content["schema"])


def test_every_parameter_and_header_has_one() -> None:
    parameters = [parameter for operation in OPERATIONS_HERE.values() for parameter in operation["parameters"]]
    for part in (*parameters, *DOCUMENT["components"]["headers"].values()):
        if part.get("in") != "query" or part["name"] == "last_event_id":
            assert agrees(part["example"], part["schema"])


def test_every_event_is_shown() -> None:
    shown = OPERATIONS_HERE["post_stream"]["responses"]["200"]["content"]["text/event-stream"]["examples"]
    seen = set()
    for example in shown.values():
        data = json.loads(example["value"]["data"])
        assert agrees(data, SCHEMAS["StreamEvent"]["properties"]["data"]["contentSchema"])
        seen.add(data["type"])
    assert seen == {SCHEMAS[kind.__name__]["properties"]["type"]["enum"][0] for kind in EVENTS}


def test_a_wrong_example_would_be_found() -> None:
    value = RESPONSES["post_chat", 202]["to be attached to"]
    assert agrees(value, SCHEMAS["Accepted"])
    for wrong in (value | {"status": "idle"}, {"status": "thinking"}, value | {"turn_id": value["session_id"]}):
        assert not agrees(wrong, SCHEMAS["Accepted"])


def test_every_problem_is_shown_by_its_code() -> None:
    shown = {
        example["value"]["code"]
        for media_type, content in MEDIA_TYPES.values()
        if media_type == "application/problem+json"
        for example in content["examples"].values()
    }
    codes = {error.code for error in FAILURES}
    assert shown == codes
    # A method is refused where there is no operation, and 500 is no answer that anyone may count on.
    assert codes == {kind.code for kind in all_errors(ChatdError)} - {"method_not_allowed", "internal"}


def all_errors(kind: type[ChatdError]) -> Iterator[type[ChatdError]]:
    for error in kind.__subclasses__():
        yield error
        yield from all_errors(error)


async def begins(exchange: Exchange) -> None:
    """Begin an answer that does not end."""
    await exchange.start()
    await exchange.text("One, ")
    await asyncio.sleep(60)


def alike(real: Any, shown: Any) -> bool:
    """Tell whether an answer has the keys of an example, and values of their kinds; null may stand for anything."""
    if real is None or shown is None:
        return True
    if isinstance(real, dict) and isinstance(shown, dict):
        return real.keys() == shown.keys() and all(alike(real[name], shown[name]) for name in real)
    if isinstance(real, list) and isinstance(shown, list):
        return len(real) == len(shown) and all(map(alike, real, shown))
    return type(real) is type(shown)


async def real_answers(chat: Chat, model: ModelServer, admin: dict[str, str]) -> dict[tuple[str, int, str], Any]:
    """Return what is really answered, by operation, status and the example that shows it."""
    real: dict[tuple[str, int, str], Any] = {}
    answer = real["post_chat", 200, "an answer"] = await chat.post("hi")
    session = answer["session_id"]
    real["get_history", 200, "a page"] = await chat.history(session)
    real["post_stop", 200, "nothing ran"] = await chat.call("POST", f"/agent/chat/stop/{session}")
    real["get_session", 200, "a session"] = await chat.call("GET", f"/agent/session/{session}")
    real["get_sessions", 200, "the last page"] = await chat.call("GET", "/agent/sessions")
    real["post_ticket", 201, "a ticket"] = await chat.call(
        "POST", "/agent/stream-ticket", 201, json={"session_id": session}
    )
    real["patch_session", 200, "a session"] = await chat.call("PATCH", f"/agent/session/{session}", json={"title": "t"})
    real["get_me", 200, "a token"] = await chat.call("GET", "/agent/me")
    real["get_healthz", 200, "alive"] = await chat.call("GET", "/healthz")
    real["get_readyz", 200, "ready"] = await chat.call("GET", "/readyz")
    real["post_session", 201, "a session"] = await chat.session(title="Capitals", system_prompt="Be short.")
    audit = await chat.call("GET", "/agent/audit?limit=1", headers=admin)
    real["get_audit", 200, "the last page"] = audit
    model.play([begins])
    prefer = {"Prefer": "respond-async"}
    real["post_chat", 202, "to be attached to"] = accepted = await chat.post("hi", status=202, headers=prefer)
    async with chat.attaching(accepted["session_id"]) as response:
        while not (await response.content.readline()).startswith(b'data: {"type":"text"'):
            pass
    real["post_stop", 200, "stopped"] = await chat.call("POST", f"/agent/chat/stop/{accepted['session_id']}")
    return real


async def test_the_answers_that_are_shown_are_like_real_ones(start: Start, model: ModelServer) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET)
    chat.client.session.headers.update(bearer(token("alice", character_ids=[7])))
    real = await real_answers(chat, model, bearer(token("root", role="admin")))
    for (operation, status, name), answer in real.items():
        shown = RESPONSES[operation, status][name]
        assert alike(answer, shown), (operation, status, name, answer, shown)
    told = {key for key in RESPONSES if key[0] not in NO_JSON}
    assert told - {key[:2] for key in real} == {("get_readyz", 503)}


async def test_the_events_that_are_shown_are_like_real_ones(chat: Chat, model: ModelServer) -> None:
    model.play([fails(529)])
    session = ""
    for kind in ("done", "error"):
        model.play([fails(529)] * (3 if kind == "error" else 0))
        async with chat.streaming("hi") as response:
            events = [event.data for event in await read_all(response)]
        assert events[-1]["type"] == kind
        session = events[0]["session_id"]
        for event in events:
            shown = json.loads(RESPONSES["post_stream", 200][event["type"]]["data"])
            assert alike(event, shown), (event, shown)
    async with chat.attaching(session, f"turn-{'0' * 32}.1") as response:
        assert (await read_all(response))[0].kind == "reset"


async def test_so_are_those_of_the_test_of_streams(start: Start) -> None:
    chat = await start(heartbeat=0.05)
    async with chat.client.get("/agent/stream-test") as response:
        events = [event.data for event in await read_all(response)]
    assert {event["type"] for event in events} == set(RESPONSES["get_stream_test", 200])
    for event in events:
        shown = json.loads(RESPONSES["get_stream_test", 200][event["type"]]["data"])
        assert alike(event, shown), (event, shown)
