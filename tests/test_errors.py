"""What is not as documented gets the documented 4xx that names it, never a 500."""

import asyncio
import io
import json
from typing import Any

import pytest

from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.test_metrics import read

JSON = {"Content-Type": "application/json"}
POSTS = ["/agent/chat", "/agent/chat/stream"]
CHARACTERS: list[Any] = [True, False, 1.0, 1.5, "1", None, 0, -1, 2**63, 10**400, [], {}, float("1e400")]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("character", CHARACTERS)
async def test_character_ids(chat: Chat, path: str, character: Any) -> None:
    body = json.dumps(chat.body("hi", character_id=character))
    problem = await chat.call("POST", path, 400, data=body, headers=JSON)
    assert problem["code"] == "invalid_request"
    if character != float("inf"):  # not JSON at all
        assert list(problem["errors"]) == ["character_id"]


async def test_the_largest_character_id(chat: Chat) -> None:
    body = chat.body("hi", character_id=2**63 - 1)
    await chat.call("POST", "/agent/chat", json=body)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"message": ""}, ["message"]),
        ({"message": " \n\t\u2003"}, ["message"]),
        ({"message": "x" * 10_001}, ["message"]),
        ({"message": None}, ["message"]),
        ({"message": 1}, ["message"]),
        ({"message": ["hi"]}, ["message"]),
        ({"session_id": 1}, ["session_id"]),
        ({"session_id": {}}, ["session_id"]),
        ({"model": "x", "temperature": 1}, ["model", "temperature"]),
        ({"\x00": 1}, ["\ufffd"]),
        ({"\ud800": 1}, ["\ufffd"]),
        ({"message": "", "character_id": 0, "extra": 1}, ["character_id", "extra", "message"]),
    ],
)
async def test_fields(chat: Chat, path: str, changes: dict[str, Any], named: list[str]) -> None:
    problem = await chat.call("POST", path, 400, json=chat.body("hi") | changes)
    assert problem["code"] == "invalid_request"
    assert sorted(problem["errors"]) == named
    assert all(isinstance(reason, str) for reasons in problem["errors"].values() for reason in reasons)


async def test_of_very_many_unknown_keys_a_few_are_named(chat: Chat) -> None:
    unknown = {f"{n}" + "x" * 1000: 1 for n in range(200)}
    problem = await chat.call("POST", "/agent/chat", 400, json=chat.body("hi") | unknown)
    assert len(json.dumps(problem)) < 5000
    assert len(problem["errors"]) == 20


async def test_ten_thousand_characters_are_taken(chat: Chat) -> None:
    await chat.post("😀" * 10_000)


@pytest.mark.parametrize("path", [*POSTS, "/agent/session"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"hi"',
        b"7",
        b"\xff\xfe",
        b"\x00",
        b"NaN",
        b'{"message": NaN}',
        b"[" * 100_000,
        b'{"a":' * 40_000,
        b'{"character_id": ' + b"9" * 10_000 + b"}",
        "{}".encode("utf-16"),
        b"\xef\xbb\xbf{}",
    ],
)
async def test_bodies_that_are_no_json_object(chat: Chat, path: str, body: bytes) -> None:
    problem = await chat.call("POST", path, 400, data=body, headers=JSON)
    assert problem["code"] == "invalid_request"


@pytest.mark.parametrize("path", [*POSTS, "/agent/session"])
async def test_bodies_that_are_too_large(chat: Chat, path: str) -> None:
    body = io.BytesIO(json.dumps(chat.body("x" * (10 << 20))).encode())
    problem = await chat.call("POST", path, 413, data=body, headers=JSON)
    assert problem["code"] == "too_large"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_other_media_types(chat: Chat, kind: str) -> None:
    body = json.dumps(chat.body("hi"))
    problem = await chat.call("POST", "/agent/chat", 415, data=body, headers={"Content-Type": kind})
    assert problem["code"] == "unsupported_media_type"


async def test_a_charset_may_be_named(chat: Chat) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    await chat.call("POST", "/agent/chat", data=json.dumps(chat.body("hi")), headers=headers)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/agent/chat", "POST"),
        ("DELETE", "/agent/chat", "POST"),
        ("GET", "/agent/session", "POST"),
        ("POST", "/agent/sessions", "GET,HEAD"),
        ("PUT", "/agent/session/sess-" + "0" * 32, "DELETE,GET,HEAD,PATCH"),
        ("POST", "/agent/chat/history/x", "GET,HEAD"),
        ("OPTIONS", "/agent/chat", "POST"),
        ("POST", "/healthz", "GET,HEAD"),
    ],
)
async def test_wrong_methods(chat: Chat, method: str, path: str, allowed: str) -> None:
    async with chat.client.request(method, path) as response:
        problem = await response.json(content_type="application/problem+json")
        assert response.status == 405
        assert response.headers["Allow"] == allowed
        assert problem["code"] == "method_not_allowed"


IDS = [
    "x",
    "sess-",
    "sess-" + "g" * 32,
    "SESS-" + "0" * 32,
    "sess-" + "0" * 33,
    "sess-" + "0" * 32,
    "%00",
    "%ff",
    "é",
    "'--",
]


@pytest.mark.parametrize("session", [*IDS, "x" * 4000])
async def test_ids_that_do_not_exist(chat: Chat, session: str) -> None:
    paths = (f"/agent/session/{session}", f"/agent/chat/history/{session}", f"/agent/chat/stream/{session}")
    problems = [await chat.call("GET", path, 404) for path in paths]
    problems.append(await chat.call("DELETE", paths[0], 404))
    assert {problem["code"] for problem in problems} == {"not_found"}


async def test_paths_that_do_not_exist(chat: Chat) -> None:
    problem = await chat.call("GET", "/nothing", 404)
    assert problem == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": problem["detail"],
        "code": "not_found",
    }


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": 1}, "title"),
        ({"system_prompt": "x" * 10_001}, "system_prompt"),
        ({"system_prompt": []}, "system_prompt"),
        ({"character_id": True}, "character_id"),
        ({"owner": "me"}, "owner"),
    ],
)
async def test_session_fields(chat: Chat, fields: dict[str, Any], named: str) -> None:
    problem = await chat.session(status=400, **fields)
    assert list(problem["errors"]) == [named]


@pytest.mark.parametrize("body", [{}, {"title": 1}, {"title": "x", "status": "idle"}])
async def test_rename_fields(chat: Chat, body: dict[str, Any]) -> None:
    session = (await chat.session())["session_id"]
    await chat.call("PATCH", f"/agent/session/{session}", 400, json=body)


async def test_request_ids(chat: Chat) -> None:
    for given, kept in (("my-id_1.2", True), ("x" * 128, True), ("bad id", False), ("x" * 129, False), ("", False)):
        async with chat.client.get("/healthz", headers={"X-Request-ID": given}) as response:
            assert (response.headers["X-Request-ID"] == given) is kept
            assert response.headers["X-Request-ID"]
    async with chat.streaming("hi") as response:
        assert response.headers["X-Request-ID"]


async def test_without_tokens_only_this_host_is_answered(chat: Chat, start: Start) -> None:
    refused: list[dict[str, str]] = [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8000"},
        {"Host": "10.0.0.1"},
        {"Host": ""},
        {"X-Forwarded-For": "1.2.3.4"},
        {"Forwarded": "for=1.2.3.4"},
    ]
    for headers in refused:
        problem = await chat.call("GET", "/agent/sessions", 403, headers=headers)
        assert problem["code"] == "forbidden"
    for host in ("localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST.", "app.localhost"):
        await chat.call("GET", "/agent/sessions", headers={"Host": host})
    open_to_all = await start(allow_anonymous=True)
    for headers in refused[:3] + refused[4:]:
        await open_to_all.call("GET", "/agent/sessions", headers=headers)


async def test_raw_nonsense_on_the_socket(chat: Chat) -> None:
    for data in (b"\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"POST /agent/chat HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", chat.client.port)
        writer.write(data)
        answer = await reader.readline()
        writer.close()
        assert b" 400 " in answer
    await chat.call("GET", "/healthz")


async def test_nothing_of_an_unexpected_failure_leaks(chat: Chat) -> None:
    async with chat.turns.repo.connection() as conn:
        await conn.execute("ALTER TABLE agent_sessions RENAME COLUMN title TO secret_title")
    assert "chatd_errors_total 0.0\n" in await read(chat)
    problem = await chat.call("GET", "/agent/sessions", 500)
    assert problem["code"] == "internal"
    assert "secret" not in json.dumps(problem)
    assert "chatd_errors_total 1.0\n" in await read(chat)


@pytest.mark.parametrize(
    "forbidden", ["agent_messages ADD CHECK (role <> 'assistant')", "agent_events ADD CHECK (seq < 2)"]
)
async def test_a_turn_that_can_not_be_written_is_counted(chat: Chat, forbidden: str) -> None:
    async with chat.turns.repo.connection() as conn:
        await conn.execute(f"ALTER TABLE {forbidden}")
    async with chat.streaming("hi"):
        await until(lambda: not chat.turns.running)
    assert "chatd_errors_total 0.0\n" not in await read(chat)
