"""Every route, asked by everyone: made from the router itself, so that a route without a row here fails."""

from typing import Any

import pytest

from tests.chat_client import CHARACTER, Chat
from tests.conftest import Start
from tests.token_provider import SECRET, bearer, token

EVERYONE = ("owner", "other owner", "other character", "admin", "anonymous", "expired", "garbage")
STRANGERS = ("anonymous", "expired", "garbage")
TOKENS = {
    "owner": token("alice", character_ids=[CHARACTER]),
    "other owner": token("bob"),
    "other character": token("alice", character_ids=[CHARACTER + 1]),
    "admin": token("root", role="admin"),
    "anonymous": None,
    "expired": token("alice", exp=1),
    "garbage": token("alice")[:-4] + "AAAA",
}
CHAT = {"message": "hi", "session_id": "{session}", "character_id": CHARACTER}
# (method, path): what is sent, and what the owner, another one, the owner's other character and an admin get.
# Strangers get 401; `None`: the route is open, and they get what everyone gets.
ROUTES: dict[tuple[str, str], tuple[Any, tuple[int, int, int, int] | int]] = {
    ("POST", "/agent/chat"): (CHAT, (200, 404, 403, 404)),
    ("POST", "/agent/chat/stream"): (CHAT, (200, 404, 403, 404)),
    ("GET", "/agent/chat/stream/{session_id}"): (None, (204, 404, 204, 404)),
    ("GET", "/agent/stream-test"): (None, (200, 200, 200, 200)),
    ("GET", "/agent/chat/history/{session_id}"): (None, (200, 404, 200, 200)),
    ("POST", "/agent/chat/stop/{session_id}"): (None, (200, 404, 200, 404)),
    ("POST", "/agent/stream-ticket"): ({"session_id": "{session}"}, (201, 404, 201, 404)),
    ("POST", "/agent/session"): ({"character_id": CHARACTER}, (201, 201, 403, 201)),
    ("GET", "/agent/sessions"): (None, (200, 200, 200, 200)),
    ("GET", "/agent/session/{session_id}"): (None, (200, 404, 200, 200)),
    ("PATCH", "/agent/session/{session_id}"): ({"title": "mine"}, (200, 404, 200, 404)),
    ("DELETE", "/agent/session/{session_id}"): (None, (204, 404, 204, 404)),
    ("GET", "/agent/me"): (None, (200, 200, 200, 200)),
    ("GET", "/agent/audit"): (None, (403, 403, 403, 200)),
    ("GET", "/healthz"): (None, 200),
    ("GET", "/readyz"): (None, 200),
    ("GET", "/metrics"): (None, 200),  # to this host's own programs: others are in tests/test_metrics.py
    ("GET", "/openapi.json"): (None, 200),
    ("GET", "/"): (None, 200),
    ("GET", "/docs"): (None, 200),
    ("GET", "/web/{path}"): (None, 404),
    ("GET", "/favicon.ico"): (None, 200),
}
STREAMS = ("/agent/chat/stream/{session_id}", "/agent/stream-test")
CELLS = [(*route, who) for route in ROUTES for who in EVERYONE]


@pytest.fixture
async def guarded(start: Start) -> Chat:
    return await start(auth="jwt", jwt_secret=SECRET, heartbeat=0.05)


def expected(method: str, path: str, who: str) -> int:
    _, statuses = ROUTES[method, path]
    if isinstance(statuses, int):
        return statuses
    return 401 if who in STRANGERS else statuses[EVERYONE.index(who)]


def fill(value: Any, session: str) -> Any:
    """Put a session's id where it belongs."""
    if isinstance(value, dict):
        return {key: fill(item, session) for key, item in value.items()}
    return session if value == "{session}" else value


async def ask(chat: Chat, method: str, path: str, who: str, session: str) -> tuple[int, str]:
    given = TOKENS[who]
    options: dict[str, Any] = {"headers": bearer(given) if given else {}}
    if (body := ROUTES[method, path][0]) is not None:
        options["json"] = fill(body, session)
    async with chat.client.request(method, path.replace("{session_id}", session), **options) as response:
        return response.status, await response.text(errors="replace")


async def make_session(chat: Chat) -> str:
    """Return a session of the owner's with an answer in it."""
    body = {"message": "a secret", "character_id": CHARACTER}
    headers = bearer(str(TOKENS["owner"]))
    return str((await chat.call("POST", "/agent/chat", json=body, headers=headers))["session_id"])


async def test_every_route_has_its_row(guarded: Chat) -> None:
    routes = guarded.client.server.app.router.routes()
    there = {(route.method, route.resource.canonical) for route in routes if route.method != "HEAD"}
    assert there == set(ROUTES)


@pytest.mark.parametrize(("method", "path", "who"), CELLS)
async def test_who_gets_what(guarded: Chat, method: str, path: str, who: str) -> None:
    session = await make_session(guarded)
    status, body = await ask(guarded, method, path, who, session)
    assert status == expected(method, path, who), body
    if status >= 400 or who not in {"owner", "other character", "admin"}:
        assert "a secret" not in body
        assert session not in body
    if status in {401, 404}:
        missing = await ask(guarded, method, path, who, f"sess-{'0' * 32}")
        assert missing == (status, body)


@pytest.mark.parametrize("who", EVERYONE)
async def test_a_head_request_tells_no_more(guarded: Chat, who: str) -> None:
    session = await make_session(guarded)
    given = TOKENS[who]
    for method, path in ROUTES:
        if method == "GET" and path not in STREAMS:
            url = path.replace("{session_id}", session)
            async with guarded.client.head(url, headers=bearer(given) if given else {}) as response:
                assert response.status == expected(method, path, who)
                assert await response.read() == b""
