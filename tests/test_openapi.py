"""What GET /openapi.json says is true: it is valid, complete, and what chatd answers to thousands of odd requests."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import validate

from chatd.app import ROUTES, create_app
from chatd.config import Config
from chatd.middlewares import is_public
from chatd.openapi.document import NOT_BLANK, build_document
from chatd.openapi.operations import OPERATIONS
from chatd.serve import make_runner
from tests.chat_client import Chat
from tests.token_provider import SECRET, bearer, token

ROOT = Path(__file__).parent.parent
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
Listen = Callable[..., Awaitable[str]]


@pytest.fixture
async def listen(config: Config) -> AsyncIterator[Listen]:
    """Yield a function that starts chatd as its command does, with settings changed by keyword; it returns the URL."""
    runners: list[web.AppRunner] = []

    async def listen(**changes: Any) -> str:
        runner = make_runner(create_app(replace(config, **changes)))
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield listen
    for runner in runners:
        await runner.cleanup()


def document(auth: str = "none") -> Any:
    return json.loads(build_document(auth))


@pytest.mark.parametrize("auth", ["none", "jwt"])
def test_it_is_openapi(auth: str) -> None:
    validate(document(auth))


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    assert {(route.method, route.path) for route in ROUTES if isinstance(route, web.RouteDef)} == set(OPERATIONS)


async def test_it_needs_no_token(listen: Listen, chat: Chat) -> None:
    url = await listen(auth="jwt", jwt_secret=SECRET)
    async with chat.client.session.get(f"{url}/openapi.json") as response:
        assert response.status == 200
        assert await response.json() == document("jwt")
    assert await chat.call("GET", "/openapi.json") == document("none")


def test_who_may_ask() -> None:
    for path, operations in document("jwt")["paths"].items():
        for operation in operations.values():
            needs_token = {"bearerAuth": []} in operation["security"]
            assert needs_token == ("401" in operation["responses"]) == (not is_public(path))
    stream = document("jwt")["paths"]["/agent/chat/stream/{session_id}"]["get"]
    assert stream["security"] == [{"bearerAuth": []}, {"ticket": []}]
    for operations in document("none")["paths"].values():
        assert all(not operation["security"] or {} in operation["security"] for operation in operations.values())


def test_what_is_taken() -> None:
    chat = document()["components"]["schemas"]["ChatRequest"]
    assert chat["required"] == ["character_id", "message"]
    assert chat["additionalProperties"] is False
    forms = {
        name: {key: value for key, value in field.items() if key != "description"}
        for name, field in chat["properties"].items()
    }
    assert forms == {
        "message": {"type": "string", "minLength": 1, "maxLength": 10_000, "pattern": NOT_BLANK},
        "session_id": {"type": ["string", "null"], "default": None, "pattern": "^sess-[0-9a-f]{32}$"},
        "character_id": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
    }


def test_blank_is_what_the_handlers_take_for_it() -> None:
    import re

    blank = re.compile(NOT_BLANK)
    for code in range(0x3100):
        assert (blank.search(chr(code)) is None) == (not chr(code).strip()), hex(code)
    assert blank.search("\ufeff")


REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Odd: a\0b\r\n\r\n",
    b"GET /healthz?" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: a-canary\r\nConnection: close\r\n\r\n",
    b"POST /agent/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /agent/chat HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"a-canary\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
]


@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
async def test_what_is_no_http_gets_a_problem_document_all_the_same(listen: Listen, request_: bytes) -> None:
    url = await listen()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(request_)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") or head.startswith(b"HTTP/1.0 400 ")
    assert b"application/problem+json" in head
    assert b"X-Request-ID: " in head
    assert json.loads(body)["code"] == "invalid_request"
    assert b"canary" not in answer


async def run_schemathesis(url: str, examples: int, *options: str, cwd: Path) -> None:
    """Have schemathesis ask everything of a server; raises AssertionError with its report."""
    process = await asyncio.create_subprocess_exec(
        *(SCHEMATHESIS, f"--config-file={ROOT / 'tests/schemathesis.toml'}", "run", f"{url}/openapi.json"),
        *("--seed=1", f"--max-examples={examples}", "--no-color", *options),
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    print(output.decode())
    assert process.returncode == 0, output.decode()


@pytest.mark.parametrize("caller", ["anyone", "alice", "a stranger"])
async def test_every_answer_is_as_described(
    listen: Listen, caller: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    settings = {} if caller == "anyone" else {"auth": "jwt", "jwt_secret": SECRET}
    url = await listen(**settings, heartbeat=0.05)
    alice = bearer(token("alice", exp=time.time() + 3600))["Authorization"]
    options = {
        "anyone": [],
        "alice": ["--header", f"Authorization: {alice}"],
        "a stranger": ["--phases=coverage,fuzzing"],  # there is nothing to go on with
    }[caller]
    examples = pytestconfig.getoption("--examples")
    await run_schemathesis(url, examples, *options, cwd=tmp_path)
