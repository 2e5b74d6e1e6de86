"""What was found by attacking: odd events, odd bodies, a frozen database, a local model that does not come up."""

import asyncio
import gzip
import json
import os
import signal
import socket
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatd import local_model, requests
from chatd.app import create_app
from chatd.config import Config
from chatd.embedded import Postgres
from chatd.errors import Unavailable
from chatd.llm import Llm
from chatd.local_model import open_local_model
from chatd.parsing import is_local
from chatd.prompt import Prompt
from chatd.seam import OverlapSeam
from tests.chat_client import Chat, raw, until
from tests.conftest import Start
from tests.model_server import Exchange, ModelServer, says
from tests.sse_client import text_of

JSON = {"Content-Type": "application/json"}


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def tell(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e999"])
async def test_numbers_that_json_has_no_word_for(chat: Chat, model: ModelServer, number: str) -> None:
    async def odd(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("Text")
        block = f'{{"type":"content_block_start","index":1,"content_block":{{"type":"odd","n":{number}}}}}'
        usage = f'{{"type":"message_delta","delta":{{}},"usage":{{"odd":{number},"deep":{{"n":[{number}]}}}}}}'
        await exchange.raw(f"data: {block}\n\ndata: {usage}\n\n".encode())
        await exchange.stop()

    model.play([odd])
    answer = await chat.post("hi")
    assert answer["message"]["content"] == "Text"
    assert answer["message"]["content_blocks"][1] == {"type": "odd", "n": None}


async def test_what_can_not_be_saved_is_left_out_and_the_turn_ends(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = chat.turns.repo.finish_turn

    async def refuse_blocks(turn: Any, answer: Any, events: Any) -> bool:
        if answer.token_usage is not None:
            raise RuntimeError("this can't be saved")
        return await finish(turn, answer, events)

    monkeypatch.setattr(chat.turns.repo, "finish_turn", refuse_blocks)
    received = await chat.stream("hi")
    assert received[-1].data["code"] == "internal"
    message = (await chat.history(received[0].data["session_id"]))["messages"][1]
    assert (message["content"], message["status"]) == ("Hello, world.", "interrupted")


ODD_EVENTS = [
    '{"type":"content_block_delta","index":0,"delta":{"type":[],"text":"x"}}',
    '{"type":"content_block_delta","index":[1],"delta":{"type":"text_delta","text":"x"}}',
    '{"type":"content_block_start","index":1,"content_block":{"type":"text","text":5}}',
    '{"type":"content_block_start","index":{},"content_block":{"type":"text","text":["a"]}}',
    '{"type":"message_delta","delta":{"stop_reason":{}},"usage":{"output_tokens":"many"}}',
    '{"type":"message_start","message":{"model":7,"usage":[]}}',
    "[" * 100_000,
]


@pytest.mark.parametrize("event", ODD_EVENTS)
async def test_the_text_before_an_odd_event_in_one_chunk_is_shown(chat: Chat, model: ModelServer, event: str) -> None:
    deltas = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in "AB"]

    async def script(exchange: Exchange) -> None:
        await exchange.start()
        lines = [*map(json.dumps, deltas), event]
        await exchange.raw("".join(f"data: {line}\n\n" for line in lines).encode())
        if len(model.requests) == 1:
            await exchange.end()

    model.play([script, says("C")])
    received = await chat.stream("hi")
    assert text_of(received) == "ABC"
    message = (await chat.history(received[0].data["session_id"]))["messages"][1]
    assert message["content"] == "ABC"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_body_that_is_not_coded_as_its_header_says(chat: Chat, coding: str) -> None:
    headers = JSON | {"Content-Encoding": coding}
    problem = await chat.call("POST", "/agent/chat", 400, data=b"x" * 100, headers=headers)
    assert problem["code"] == "invalid_request"


SMALL_KEYS = json.dumps({f"{n:x}": 0 for n in range(20_000)}).encode()
BOMBS = {
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 40_000 + b"0" + b"}" * 40_000,
    "deep within": b'{"message":' + b"[" * 100_000 + b"]" * 100_000 + b',"character_id":1}',
    "a long integer": b'{"message":"hi","character_id":1' + b"0" * 10_000 + b"}",
    "a longer one": b'{"message":"hi","character_id":' + b"9" * 250_000 + b"}",
    "a long fraction": b'{"message":"hi","character_id":1.' + b"0" * 250_000 + b"}",
    "a huge exponent": b'{"message":"hi","character_id":1e400}',
    "a tiny one": b'{"message":"hi","character_id":1e-999999999}',
    "a number as a string": b'{"message":"hi","character_id":"1"}',
    "a name twice": b'{"message":"hi","character_id":1,"character_id":2}',
    "a name twice, escaped": b'{"message":"hi","character_id":1,"\\u006dessage":"ho"}',
    "a name twice, deep down": b'{"message":"hi","character_id":1,"x":[{"a":1,"a":1}]}',
    "small keys": SMALL_KEYS,
    "a long key": b'{"' + b"k" * 250_000 + b'":0}',
    "many escapes": b'{"message":"' + b"\\u0000" * 40_000 + b'","character_id":1}',
    "invalid UTF-8": b'{"message":"\xc3\x28","character_id":1}',
    "a surrogate in UTF-8": b'{"message":"\xed\xa0\x80","character_id":1}',
    "an overlong form": b'{"message":"\xc0\xaf","character_id":1}',
    "a BOM": b'\xef\xbb\xbf{"message":"hi","character_id":1}',
    "UTF-32": '{"message":"hi","character_id":1}'.encode("utf-32"),
    "spaces": b" " * 261_000 + b"{}",
    "two values": b'{"message":"hi","character_id":1}{}',
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_bombs_of_json(chat: Chat, bomb: str) -> None:
    for path in ("/agent/chat", "/agent/chat/stream", "/agent/session", "/agent/stream-ticket"):
        begun = time.monotonic()
        async with chat.client.post(path, data=BOMBS[bomb], headers=JSON) as response:
            problem = await response.json(content_type="application/problem+json")
            assert (response.status, problem["code"]) == (400, "invalid_request")
            assert int(response.headers["Content-Length"]) < 600_000
        assert time.monotonic() - begun < 2
    await chat.post("still there")


async def test_a_body_of_just_more_than_is_taken(chat: Chat) -> None:
    await chat.call("POST", "/agent/chat", 413, data=SMALL_KEYS.ljust((256 << 10) + 1), headers=JSON)


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_body_that_is_large_once_unpacked(chat: Chat, coding: str, pack: Callable[[bytes], bytes]) -> None:
    body = pack(b" " * (100 << 20))
    assert len(body) < 256 << 10
    await chat.call("POST", "/agent/chat", 413, data=body, headers=JSON | {"Content-Encoding": coding})


async def test_an_expectation_that_nobody_has(chat: Chat) -> None:
    answer = await raw(chat, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: wonders\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"X-Request-ID" in answer


async def test_a_body_that_does_not_come(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_TIMEOUT", 0.2)
    head = b"POST /agent/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await raw(chat, head + b"Content-Length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"did not arrive in time" in answer


async def test_a_key_named_like_the_schema(chat: Chat) -> None:
    problem = await chat.call("POST", "/agent/chat", 400, json=chat.body("hi") | {"_schema": 1})
    assert "_schema" in problem["errors"]


async def test_shutting_down_while_the_database_is_frozen(
    config: Config, postgres: Postgres, model: ModelServer
) -> None:
    from aiohttp import web

    runner = web.AppRunner(create_app(replace(config, database_url=postgres.dsn())), shutdown_timeout=0.2)
    await runner.setup()
    assert postgres.process is not None
    pids = family(postgres.process.pid)
    tell(pids, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        await asyncio.wait_for(runner.cleanup(), 20)
    finally:
        tell(pids, signal.SIGCONT)
    assert time.monotonic() - begun < 15


async def test_a_message_that_was_told_503_is_not_there_later(start: Start, postgres: Postgres) -> None:
    """The connections freeze with the statement under way and thaw after the client has heard of it."""
    chat = await start(database_url=postgres.dsn())
    session = (await chat.post("one"))["session_id"]
    async with chat.turns.repo.connection() as conn:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'chatd'"
        backends = [row["pid"] for row in await conn.fetch(query)]
    tell(backends, signal.SIGSTOP)
    await chat.post("two", session, status=503)
    tell(backends, signal.SIGCONT)
    await until(lambda: not chat.turns.running)
    await asyncio.sleep(0.5)
    assert (await chat.history(session))["message_count"] == 2
    await chat.post("three", session)
    contents = [message["content"] for message in (await chat.history(session))["messages"]]
    assert contents == ["one", "Hello, world.", "three", "Hello, world."]


async def test_deleting_while_the_database_is_away(
    chat: Chat, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.default = says(*"abcdef", delay=0.2)
    accepted = await chat.post("hi", status=202, headers={"Prefer": "respond-async"})

    async def away(*_: Any) -> None:
        raise Unavailable

    monkeypatch.setattr("chatd.turns.STOP_TIMEOUT", 0.3)
    monkeypatch.setattr(chat.turns.repo, "finish_turn", away)
    await chat.call("DELETE", f"/agent/session/{accepted['session_id']}", 503)
    monkeypatch.undo()
    await until(lambda: not chat.turns.running)
    await chat.call("DELETE", f"/agent/session/{accepted['session_id']}", 204)


async def test_a_local_model_that_does_not_come_up_is_no_reason_to_ask_another(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_local_model(replace(config, api_key=None, base_url=None)) as local:
        monkeypatch.setattr(local_model, "START_TIMEOUT", 0.01)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await local.address()
            assert local.process is None
        monkeypatch.undo()
        starting = asyncio.create_task(local.address())
        await asyncio.sleep(0.1)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert local.process is None
        assert (await local.address()).startswith("http://127.0.0.1:")


async def test_what_is_local_goes_through_no_proxy(
    chat: Chat, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert (await chat.post("hi"))["message"]["content"] == "Hello, world."
    assert is_local("http://[::1]:1/x")
    assert not is_local("https://api.anthropic.com")


def counting(monkeypatch: pytest.MonkeyPatch, llm: Llm, count: Callable[[Prompt], int]) -> None:
    async def count_tokens(prompt: Prompt) -> int:
        return count(prompt)

    monkeypatch.setattr(llm, "_count_tokens", count_tokens)


async def test_a_prompt_is_shortened_until_it_fits_or_can_not_be(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_local_model(config) as local:
        llm = Llm(config, local)
        counting(monkeypatch, llm, lambda prompt: len(prompt.system) + sum(len(text) for _, text in prompt.messages))
        long = Prompt("s" * 10_000, (("user", "a"), ("assistant", "b"), ("user", "c" * 5000)))
        fitted = await llm.fit(long)
        assert len(fitted.system) + len(fitted.messages[0][1]) <= llm.budget
        assert fitted.messages[0][0] == "user"
        counting(monkeypatch, llm, lambda _: 10_000)
        with pytest.raises(Exception, match="upstream_refused"):
            await llm.fit(long)


def test_a_long_overlap_is_found_in_no_time() -> None:
    shown = "".join(f"word{n} " for n in range(100_000))
    seam = OverlapSeam(shown)
    begun = time.monotonic()
    assert seam.feed(shown[:500_000]) + seam.feed("something else") == shown[:500_000] + "something else"
    assert OverlapSeam(shown).feed(shown + "new") == "new"
    assert time.monotonic() - begun < 5


async def test_a_client_that_does_not_read_an_answer_is_cut(start: Start) -> None:
    chat = await start(write_timeout=0.5)
    session = (await chat.session())["session_id"]
    async with chat.turns.repo.connection() as conn:
        await conn.execute(
            "INSERT INTO agent_messages (id, session_id, role, content)"
            " VALUES ('msg-' || repeat('0', 32), $1, 'user', repeat('x', 16 << 20))",
            session,
        )
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", chat.client.server.port))
        await loop.sock_sendall(sock, f"GET /agent/chat/history/{session} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await asyncio.sleep(6)
        received = 0
        with pytest.raises(ConnectionResetError):
            while chunk := await asyncio.wait_for(loop.sock_recv(sock, 1 << 20), 2):
                received += len(chunk)
        assert received < 16 << 20
