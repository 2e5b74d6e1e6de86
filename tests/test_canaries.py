"""Canaries in all that is secret or somebody's words; everything is made to fail; none is in a log or an error."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OctKey

from chatd.embedded import SETTINGS, Postgres
from tests.chat_client import Chat, until
from tests.conftest import execute
from tests.model_server import Exchange, ModelServer, Script, fails, says
from tests.server_process import ServerProcess, run, serving
from tests.sse_client import read_all
from tests.test_metrics import read as read_metrics
from tests.token_provider import bearer, claims_of, sign

SECRET = "canary-secret, which both sides know and nobody else"
KEY = "sk-canary-key"
PROMPT = "canary-prompt"
OWNER = "canary-owner"
COOKIE = {"Cookie": "session=canary-cookie"}
ECHO = f"{KEY} {PROMPT} canary-echo"


def token(**claims: Any) -> str:
    return sign(claims_of(OWNER, **claims), OctKey.import_key(SECRET))


class Prober:
    """Asks, and keeps what is answered: all headers, and the bodies of errors; a success tells the caller its own."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.token = token()
        self.answers: list[str] = []
        self.statuses: list[int] = []

    async def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> Any:
        given = bearer(self.token) | COOKIE | (headers or {})
        async with self.chat.client.request(method, path, headers=given, **options) as response:
            body = await response.text()
            self.statuses.append(response.status)
            self.answers.append(f"{dict(response.headers)} {body if response.status >= 400 else ''}")
            return json.loads(body) if response.content_type == "application/json" else body

    async def post(self, message: str = PROMPT, session_id: str | None = None, **options: Any) -> Any:
        return await self.ask("POST", "/agent/chat", json=self.chat.body(message, session_id), **options)


@pytest.fixture
def server(postgres: Postgres, model: ModelServer, tmp_path: Path) -> ServerProcess:
    return ServerProcess(
        DATABASE_URL=postgres.dsn(),
        CHATD_DATA_DIR=str(tmp_path / "data"),
        ANTHROPIC_BASE_URL=model.url,
        ANTHROPIC_API_KEY=KEY,
        ANTHROPIC_LOG="debug",
        CHATD_SYSTEM_PROMPT="canary-system",
        CHATD_AUTH="jwt",
        CHATD_JWT_SECRET=SECRET,
        CHATD_RETRY_FACTOR="0.01",
        CHATD_DRAIN_TIMEOUT="0.2",
        CHATD_LOG_LEVEL="debug",
    )


@pytest.fixture
async def told(server: ServerProcess, postgres: Postgres, tmp_path: Path) -> AsyncIterator[list[str]]:
    """Yield a list of what else was told, and look through it and all logs in the end."""
    others: list[str] = []
    with (tmp_path / "stdout").open("wb") as server.stdout:
        yield others
    told = [server.log, (tmp_path / "stdout").read_text(), postgres.log.read_text(), *others]
    for text in told:
        found = text.lower().find("canary")
        assert found < 0, text[max(0, found - 500) : found + 100]


async def test_signing_in(server: ServerProcess, told: list[str]) -> None:
    async with serving(server) as chat:
        prober = Prober(chat)
        session = (await prober.ask("POST", "/agent/session", json={"character_id": 7}))["session_id"]
        ticket = (await prober.ask("POST", "/agent/stream-ticket", json={"session_id": session}))["ticket"]
        stream = f"/agent/chat/stream/{session}"
        await prober.ask("GET", f"{stream}?ticket={ticket}")
        async with chat.client.get(f"{stream}?ticket={ticket}") as response:
            assert response.status == 204
        async with chat.client.get(f"{stream}?ticket=canary-ticket", headers=COOKIE) as response:
            assert response.status == 401
            told.append(str(response.headers) + await response.text())
        tokens = [token(exp=time.time() - 9), token()[:-4], "canary", "canary.canary.canary", f"{token()}canary"]
        tokens += [
            token(aud=5, character_ids="canary"),
            token(sub="x" * 5000),
            sign(claims_of(), OctKey.import_key("canary" * 9)),
        ]
        for given in tokens:
            await prober.ask("GET", "/agent/sessions", headers=bearer(given))
        for scheme in ("Basic canary", "Bearer", "Bearer canary canary", "canary"):
            await prober.ask("GET", "/agent/sessions", headers={"Authorization": scheme})
        assert prober.statuses.count(401) >= 10
        told.append(await read_metrics(chat))
    told += prober.answers
    everything = "\n".join([server.log, *told])
    for secret in (ticket, prober.token, *tokens[:2]):
        assert secret not in everything
        assert secret.rpartition(".")[2] not in everything


BODIES: list[tuple[bytes, dict[str, str]]] = [
    (b'{"message": "canary', {}),
    (b'{"message": canary}', {}),
    (b'"canary"', {}),
    (b"canary\xff", {}),
    (b'{"message": ["canary"], "character_id": "canary", "session_id": {"canary": 1}}', {}),
    (b'{"message": "canary", "character_id": 7, "session_id": "canary"}', {}),
    (b'{"message": "' + b"canary" * 2000 + b'", "character_id": 7}', {}),
    (b"canary" * 100_000, {}),
    (b"canary", {"Content-Type": "text/canary"}),
    (b"canary", {"Content-Encoding": "gzip", "Connection": "close"}),
    (b'{"message": "x", "character_id": 7}', {"Idempotency-Key": "canary key"}),
]


async def test_requests_that_are_wrong(server: ServerProcess, told: list[str]) -> None:
    async with serving(server) as chat:
        prober = Prober(chat)
        for body, headers in BODIES:
            for path in ("/agent/chat", "/agent/chat/stream", "/agent/session", "/agent/stream-ticket"):
                await prober.ask("POST", path, data=body, headers={"Content-Type": "application/json"} | headers)
        for path in (
            "/nothing?canary=canary",
            "/agent/sessions?limit=canary",
            "/agent/sessions?before=canary&ticket=canary",
        ):
            await prober.ask("GET", path)
        session = (await prober.post("canary", headers={"Idempotency-Key": "canary-key"}))["session_id"]
        for name in ("before", "after"):
            await prober.ask("GET", f"/agent/chat/history/{session}?{name}=canary")
        await prober.post("canary-other", session, headers={"Idempotency-Key": "canary-key"})
        await prober.ask("GET", f"/agent/chat/stream/{session}", headers={"Last-Event-ID": "canary"})
        await prober.ask("DELETE", "/agent/chat", headers={"Last-Event-ID": "canary"})
        reader, writer = await asyncio.open_connection("127.0.0.1", chat.client._base_url.port)
        writer.write(b"GET /canary HTTP/1.1\r\nCookie: canary\x01\r\nAuthorization: Bearer canary\r\n\r\n")
        told.append((await reader.read(5000)).decode())
        writer.close()
        assert {400, 404, 405, 413, 415, 422} <= set(prober.statuses)
        told.append(await read_metrics(chat))
    assert "Traceback" not in server.log
    told += prober.answers


async def malformed(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.raw(b'data: {"type": "canary\n\n')


async def error_event(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.text("canary-answer")
    await exchange.event("error", error={"type": "canary_error", "message": ECHO})


async def odd_headers(exchange: Exchange) -> None:
    await exchange.head(headers={"request-id": "canary", "content-encoding": "gzip", "set-cookie": "canary=canary"})
    await exchange.raw(b"canary is not gzip")


async def no_http(exchange: Exchange) -> None:
    exchange.writer.write(b"canary canary canary\r\n\r\n")
    await exchange.writer.drain()


async def no_json(exchange: Exchange) -> None:
    exchange.writer.write(
        b"HTTP/1.1 500 canary\r\nContent-Length: 6\r\nConnection: close\r\nrequest-id: canary\r\n\r\ncanary"
    )
    await exchange.writer.drain()


FAILURES: list[Script] = [
    *(fails(status, "canary_error", ECHO, retry_after="canary") for status in (400, 401, 403, 404, 413, 429, 500, 529)),
    *(malformed, error_event, odd_headers, no_http, no_json),
]


async def test_a_model_that_fails_and_repeats_what_it_got(
    server: ServerProcess, model: ModelServer, told: list[str]
) -> None:
    async with serving(server) as chat:
        prober = Prober(chat)
        for script in FAILURES:
            model.default = script
            await prober.post()
        assert prober.statuses == [502] * len(FAILURES)
        assert KEY in str([request.headers for request in model.requests])
        await model.stop()
        await prober.post()
        assert prober.statuses[-1] == 502
        told.append(await read_metrics(chat))
    assert "can't be reached" in server.log
    told += prober.answers


async def test_a_database_that_fails_and_tells_of_rows(
    server: ServerProcess, model: ModelServer, postgres: Postgres, told: list[str]
) -> None:
    async with serving(server) as chat:
        prober = Prober(chat)
        await execute(postgres.dsn(), "ALTER TABLE agent_sessions ADD CHECK (title <> 'canary-title')")
        await execute(postgres.dsn(), "ALTER TABLE agent_messages ADD CHECK (content NOT LIKE '%canary-answer%')")
        await execute(postgres.dsn(), "ALTER TABLE agent_messages ADD CHECK (content <> 'canary-message')")
        await prober.ask("POST", "/agent/session", json={"character_id": 7, "title": "canary-title"})
        await prober.post("canary-message")
        assert prober.statuses == [500, 500]
        model.default = says("canary-answer")
        posted = asyncio.create_task(prober.post())
        await until(lambda: server.log.count("Traceback") >= 4)
        posted.cancel()
        await asyncio.gather(posted, return_exceptions=True)
        told.append(await read_metrics(chat))
    assert "CheckViolationError" in server.log
    told += prober.answers


async def test_the_database_and_the_process_are_killed_in_mid_turn(
    server: ServerProcess, model: ModelServer, postgres: Postgres, told: list[str]
) -> None:
    model.default = says(*["canary "] * 400, delay=0.05)
    async with serving(server) as chat:
        prober = Prober(chat)
        session = (await prober.post(headers={"Prefer": "respond-async"}))["session_id"]
        await until(lambda: len(model.requests) == 1)
        assert postgres.process is not None
        postgres.process.kill()
        await postgres.process.wait()
        await prober.ask("GET", f"/agent/chat/history/{session}")
        await prober.post()
        assert prober.statuses[-2:] == [503, 503]
        await postgres.start(SETTINGS)
        await until(lambda: "database back" in server.log, 20)
        assert await server.end(signal.SIGTERM) == 0
    model.default = says("canary-end")
    async with serving(server) as chat:
        async with asyncio.timeout(20):
            path = f"/agent/chat/stream/{session}?last_event_id=canary"
            async with chat.client.get(path, headers=bearer(prober.token)) as response:
                assert (await read_all(response))[-1].kind == "done"
        told.append(await read_metrics(chat))
    assert "going on with" in server.log
    told += prober.answers


async def test_commands_that_fail(dsn: str) -> None:
    url = "postgresql://canary:canary@127.0.0.1:9/canary"
    for name in ("DATABASE_URL", "CHATD_MIGRATE_URL"):
        status, output = await run("migrate", **{"DATABASE_URL": dsn, name: url})
        assert status == 1
        assert "canary" not in output
    wrong = {"CHATD_JWT_SECRET": "canary", "DATABASE_URL": "canary", "CHATD_MIGRATE_URL": "canary"}
    status, output = await run("serve", **wrong)
    assert status == 2
    assert len(output.splitlines()) >= 3
    assert "canary" not in output
