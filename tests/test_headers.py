"""What every response says to a browser, and which pages elsewhere may read it."""

from typing import Any

import pytest

from chatd.app import ROUTES
from chatd.config import read_config
from chatd.errors import ConfigError
from chatd.handlers.page import DOCS_POLICY, POLICY
from chatd.headers import SECURITY, SERVER
from tests.chat_client import Chat, raw
from tests.conftest import Start
from tests.token_provider import SECRET, bearer, token

APP = "https://app.example"
POLICIES = {"/": POLICY, "/docs": DOCS_POLICY}
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "POST"}


async def headers_of(chat: Chat, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with chat.client.request(method, path, **options) as response:
        await response.read()
        return response.status, response.headers


def are_safe(headers: Any, policy: str = SECURITY["Content-Security-Policy"]) -> bool:
    expected = {**SECURITY, **SERVER, "Content-Security-Policy": policy}
    return all(headers.getall(name) == [value] for name, value in expected.items()) and "X-Request-ID" in headers


async def test_every_route_answers_with_them(chat: Chat) -> None:
    session = (await chat.session())["session_id"]
    for route in ROUTES:
        path = route.path.replace("{session_id}", session)
        status, headers = await headers_of(chat, route.method, path, json=chat.body("hi"))
        assert status < 500
        assert are_safe(headers, POLICIES.get(path, SECURITY["Content-Security-Policy"]))
        assert (headers.get("Cache-Control") == "no-store") is path.startswith("/agent/")


async def test_so_do_errors_and_aiohttp_itself(chat: Chat, start: Start) -> None:
    guarded = await start(auth="jwt", jwt_secret=SECRET)
    assert are_safe((await headers_of(guarded, "GET", "/agent/sessions"))[1])
    for method, path in (("GET", "/nothing"), ("PUT", "/agent/chat"), ("POST", "/agent/chat"), ("OPTIONS", "/")):
        assert are_safe((await headers_of(chat, method, path))[1])
    assert are_safe((await headers_of(chat, "GET", "/healthz", headers={"Expect": "wonders"}))[1])
    async with chat.turns.repo.connection() as conn:
        await conn.execute("ALTER TABLE agent_sessions RENAME TO gone")
    status, headers = await headers_of(chat, "GET", "/agent/sessions")
    assert status == 500
    assert are_safe(headers)


@pytest.mark.parametrize(
    "line", [b"GET", b"\x00", b"GET / HTTP/1.1\r\nX: canary\x01", b"POST / HTTP/1.1\r\nContent-Length: x"]
)
async def test_what_is_no_http_is_answered_as_everything_and_not_repeated(chat: Chat, line: bytes) -> None:
    answer = await raw(chat, line + b"\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 400 " in head
    assert b"\r\nServer: chatd\r\n" in head
    assert b"aiohttp" not in head
    assert b"Content-Security-Policy: default-src 'none'" in head
    assert b"X-Request-ID: " in head
    assert b'"code":"invalid_request"' in body
    assert b"canary" not in answer


@pytest.mark.parametrize("name", ["X-Request-ID", "Last-Event-ID", "Idempotency-Key", "Origin", "Prefer", "Host"])
@pytest.mark.parametrize(
    "value",
    [b"a\rSet-Cookie: x=1", b"a\nSet-Cookie: x=1", b"a\r\n Set-Cookie: x=1", b"a\x00b", b"\xff\x85\xe2\x80\xa8"],
)
async def test_no_header_of_a_request_gets_into_those_of_its_answer(start: Start, name: str, value: bytes) -> None:
    chat = await start(cors_origins=frozenset({APP}))
    session = (await chat.session())["session_id"].encode()
    host = b"" if name == "Host" else b"Host: localhost\r\n"
    head = b"GET /agent/chat/stream/" + session + b" HTTP/1.1\r\n" + host + b"Connection: close\r\n"
    answer = await raw(chat, head + name.encode() + b": " + value + b"\r\n\r\n")
    assert answer.split(b" ")[1] in {b"200", b"204", b"400", b"403"}
    assert b"Set-Cookie" not in answer
    assert value not in answer


async def test_no_page_elsewhere_may_read_anything_unless_listed(chat: Chat) -> None:
    status, headers = await headers_of(chat, "OPTIONS", "/agent/chat", headers=PREFLIGHT)
    assert status == 403
    assert not [name for name in headers if name.startswith("Access-Control")]
    status, headers = await headers_of(chat, "GET", "/agent/sessions", headers={"Origin": APP})
    assert status == 200
    assert not [name for name in headers if name.startswith("Access-Control")]
    assert "Vary" not in headers


@pytest.fixture
async def shared(start: Start) -> Chat:
    return await start(auth="jwt", jwt_secret=SECRET, cors_origins=frozenset({APP, "http://localhost:3000"}))


async def test_a_preflight_of_a_listed_origin(shared: Chat) -> None:
    status, headers = await headers_of(shared, "OPTIONS", "/agent/chat/stream", headers=PREFLIGHT)
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == APP
    assert headers["Access-Control-Max-Age"] == "600"
    assert {"GET", "POST", "PATCH", "DELETE"} == set(headers["Access-Control-Allow-Methods"].split(", "))
    assert {"Authorization", "Content-Type", "Last-Event-ID"} <= set(
        headers["Access-Control-Allow-Headers"].split(", ")
    )
    assert headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in headers
    assert are_safe(headers)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        f"{APP}.evil.example",
        f"{APP}:8443",
        "http://app.example",
        f"{APP}/",
        APP.upper(),
        "",
        "*",
    ],
)
async def test_other_origins(shared: Chat, origin: str) -> None:
    status, headers = await headers_of(shared, "OPTIONS", "/agent/chat", headers=PREFLIGHT | {"Origin": origin})
    assert status == 403
    assert not [name for name in headers if name.startswith("Access-Control")]
    status, headers = await headers_of(shared, "GET", "/agent/sessions", headers={"Origin": origin} | bearer(token()))
    assert status == 200
    assert not [name for name in headers if name.startswith("Access-Control")]
    assert headers["Vary"] == "Origin"


async def test_answers_errors_and_streams_of_a_listed_origin(shared: Chat) -> None:
    asked = [
        ("GET", "/agent/sessions", 401, {}),
        ("GET", "/agent/nothing", 404, bearer(token())),
        ("POST", "/agent/chat/stream", 200, bearer(token())),
        ("GET", "/healthz", 200, {}),
        ("OPTIONS", "/agent/chat", 401, {}),
    ]
    for method, path, expected, signed in asked:
        status, headers = await headers_of(
            shared, method, path, json=shared.body("hi") if method == "POST" else None, headers={"Origin": APP} | signed
        )
        assert status == expected
        assert headers["Access-Control-Allow-Origin"] == APP
        assert "X-Request-ID" in headers["Access-Control-Expose-Headers"]
        assert headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in headers


async def test_every_origin_but_null(start: Start) -> None:
    chat = await start(cors_origins=frozenset({"*"}))
    for origin, allowed in (("https://any.example", "*"), ("null", None)):
        headers = (await headers_of(chat, "GET", "/agent/sessions", headers={"Origin": origin}))[1]
        assert headers.get("Access-Control-Allow-Origin") == allowed
        status, headers = await headers_of(chat, "OPTIONS", "/agent/chat", headers=PREFLIGHT | {"Origin": origin})
        assert (status == 204) is (allowed == "*")


async def test_two_origins_are_none(shared: Chat) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    answer = await raw(shared, head + b"Origin: https://app.example\r\nOrigin: https://evil.example\r\n\r\n")
    assert b"Access-Control" not in answer


def test_origins_are_read_as_browsers_write_them() -> None:
    config = read_config(
        {"CHATD_CORS_ORIGINS": f"HTTPS://App.Example:443, http://localhost:3000,http://[::1]:80, {APP}"}
    )
    assert config.cors_origins == {APP, "http://localhost:3000", "http://[::1]"}


@pytest.mark.parametrize(
    "wrong",
    ["app.example", f"{APP}/", "null", "ftp://x", "https://", "https://*.example", "https://u@x", "https://x:0"],
)
def test_what_is_no_origin(wrong: str) -> None:
    with pytest.raises(ConfigError, match="CHATD_CORS_ORIGINS"):
        read_config({"CHATD_CORS_ORIGINS": f"{APP},{wrong}"})
