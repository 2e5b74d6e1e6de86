"""Every way in which the model can fail: attempts, events and what is saved."""

import asyncio
import json
import resource
import sys
import time
from typing import Any

import pytest

from chatd.llm import END_TIMEOUT, Llm
from chatd.prompt import Prompt
from chatd.reply import Reply
from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.model_server import Exchange, ModelServer, Script, fails, says
from tests.sse_client import Event, text_of


def retries(received: list[Event]) -> list[tuple[int, str]]:
    return [(e.data["attempt"], e.data["reason"]) for e in received if e.kind == "retry"]


def cut(*pieces: str) -> Script:
    """Say pieces, then end the body cleanly, without message_stop."""

    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text(*pieces)
        await exchange.end()

    return script


async def attempts(chat: Chat, turn_id: str) -> int:
    async with chat.turns.repo.connection() as conn:
        return int(await conn.fetchval("SELECT attempt FROM agent_turns WHERE id = $1", turn_id))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (408, "unavailable"),
        (409, "unavailable"),
        (429, "rate_limited"),
        (500, "unavailable"),
        (503, "unavailable"),
        (504, "unavailable"),
        (529, "overloaded"),
    ],
)
async def test_statuses_that_are_tried_again(chat: Chat, model: ModelServer, status: int, reason: str) -> None:
    model.play([fails(status)])
    received = await chat.stream("hi")

    assert retries(received) == [(2, f"upstream_{reason}")]
    assert [e.kind for e in received[:2]] == ["start", "retry"]
    retry = received[1].data
    assert (retry["max_attempts"], retry["delay"]) == (3, 0.02)
    assert text_of(received) == "Hello, world."
    assert received[-1].kind == "done"
    assert await attempts(chat, received[0].data["turn_id"]) == len(model.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_statuses_that_are_not_tried_again(chat: Chat, model: ModelServer, status: int) -> None:
    model.play([fails(status, "invalid_request_error", "key sk-canary-key is wrong")])
    problem = await chat.post("hi", status=502)

    assert len(model.requests) == 1
    assert problem["code"] == "upstream_failed"
    assert problem["reason"] == "upstream_refused"
    assert problem["message_id"] is None
    assert problem["session_status"] == "error"
    assert "canary" not in json.dumps(problem)
    history = await chat.history(problem["session_id"])
    assert (history["status"], history["message_count"]) == ("error", 1)


async def test_three_attempts_in_all_then_an_error_with_nothing_saved(chat: Chat, model: ModelServer) -> None:
    model.default = fails(529, "overloaded_error")
    received = await chat.stream("hi")

    assert retries(received) == [(2, "upstream_overloaded"), (3, "upstream_overloaded")]
    assert [e.data["delay"] for e in received if e.kind == "retry"] == [0.02, 0.04]
    error = received[-1].data
    assert (error["type"], error["code"], error["message_id"]) == ("error", "upstream_overloaded", None)
    assert error["error"]
    assert await attempts(chat, received[0].data["turn_id"]) == len(model.requests) == 3

    model.default = says("ok")
    again = await chat.post("again", received[0].data["session_id"])
    assert again["status"] == "idle"
    assert model.requests[-1].messages == [("user", "hi"), ("user", "again")]


@pytest.mark.parametrize(
    ("header", "delay"), [("0.2", 0.2), ("0", 0), ("garbage", 0.02), ("-5", 0.02), ("nan", 0.02), ("inf", 30)]
)
async def test_retry_after_is_heeded(chat: Chat, model: ModelServer, header: str, delay: float) -> None:
    model.play([fails(429, "rate_limit_error", retry_after=header)])
    async with chat.streaming("hi") as response:
        lines = [line async for line in first_lines(response.content, 5)]

    retry = json.loads(lines[4].removeprefix(b"data: "))
    assert (retry["type"], retry["delay"]) == ("retry", delay)


async def first_lines(content: Any, count: int) -> Any:
    """Yield lines that are not empty."""
    while count:
        if line := (await content.readline()).strip():
            count -= 1
            yield line


async def test_an_hour_of_retry_after_is_capped(chat: Chat, model: ModelServer) -> None:
    model.play([fails(429, retry_after="3600")])
    async with chat.streaming("hi") as response:
        lines = [line async for line in first_lines(response.content, 5)]
    assert json.loads(lines[4].removeprefix(b"data: "))["delay"] == 30


async def rst(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.text("One ", "two")
    exchange.reset()


async def fin(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.text("One ", "two")
    exchange.writer.close()


async def malformed(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.text("One ", "two")
    await exchange.raw(b'event: content_block_delta\ndata: {"type": "content_bl\n\n')
    await asyncio.sleep(5)


async def error_event(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.text("One ", "two")
    await exchange.event("error", error={"type": "overloaded_error", "message": "Overloaded"})


async def error_in_the_same_chunk(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.text("One ")
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "two"}}
    await exchange.raw(f'data: {json.dumps(delta)}\n\ndata: {{"type": "error"}}\n\n'.encode())


BREAKS: list[tuple[Script, str]] = [
    (rst, "upstream_cut"),
    (fin, "upstream_cut"),
    (malformed, "upstream_cut"),
    (cut("One ", "two"), "upstream_cut"),
    (error_event, "upstream_overloaded"),
    (error_in_the_same_chunk, "upstream_unavailable"),
]


@pytest.mark.parametrize(("script", "reason"), BREAKS)
async def test_a_broken_answer_is_continued_from_its_text(
    chat: Chat, model: ModelServer, script: Script, reason: str
) -> None:
    model.play([script, says(" three", " four")])
    received = await chat.stream("count")

    assert retries(received) == [(2, reason)]
    assert model.requests[1].messages == [("user", "count"), ("assistant", "One two")]
    assert text_of(received) == "One two three four"
    assert received[-1].data["length"] == len("One two three four")
    message = (await chat.history(received[0].data["session_id"]))["messages"][-1]
    assert (message["content"], message["status"]) == ("One two three four", "complete")
    assert message["content_blocks"] == [{"type": "text", "text": "One two three four"}]
    assert message["token_usage"]["input_tokens"] == 22


@pytest.mark.parametrize(("script", "reason"), BREAKS)
async def test_what_was_shown_is_saved_when_all_attempts_fail(
    chat: Chat, model: ModelServer, script: Script, reason: str
) -> None:
    model.play([script, fails(500), fails(529)])
    received = await chat.stream("count")

    start, error = received[0].data, received[-1].data
    assert retries(received) == [(2, reason), (3, "upstream_unavailable")]
    assert (error["code"], error["message_id"]) == ("upstream_overloaded", start["message_id"])
    history = await chat.history(start["session_id"])
    message = history["messages"][-1]
    assert history["status"] == "error"
    assert (message["content"], message["status"], message["stop_reason"]) == ("One two", "interrupted", None)


async def test_reset_before_the_response_is_tried_again(chat: Chat, model: ModelServer) -> None:
    async def reset(exchange: Exchange) -> None:
        exchange.reset()

    model.play([reset])
    received = await chat.stream("hi")
    assert retries(received) == [(2, "upstream_unreachable")]
    assert text_of(received) == "Hello, world."


async def test_nobody_listening(start: Start) -> None:
    chat = await start(base_url="http://127.0.0.1:9")
    problem = await chat.post("hi", status=502)
    assert problem["reason"] == "upstream_unreachable"


async def test_an_answer_that_is_no_stream(chat: Chat, model: ModelServer) -> None:
    async def page(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.raw(b"<html>It works!</html>")
        await exchange.end()

    model.default = page
    problem = await chat.post("hi", status=502)
    assert problem["reason"] == "upstream_cut"
    assert len(model.requests) == 3


async def pings(exchange: Exchange) -> None:
    for _ in range(100):
        await exchange.event("ping")
        await asyncio.sleep(0.03)


async def test_pings_alone_do_not_keep_a_stalled_start_alive(start: Start, model: ModelServer) -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.start()
        await pings(exchange)

    model.play([silent])
    chat = await start(first_content_timeout=0.3)
    received = await chat.stream("hi")
    assert retries(received) == [(2, "upstream_stalled")]
    assert text_of(received) == "Hello, world."


async def test_pings_alone_do_not_keep_a_stalled_answer_alive(start: Start, model: ModelServer) -> None:
    async def stalls(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("One")
        await pings(exchange)

    model.play([stalls, says(" two")])
    chat = await start(idle_timeout=0.3)
    received = await chat.stream("hi")
    assert retries(received) == [(2, "upstream_stalled")]
    assert text_of(received) == "One two"


async def test_a_slow_answer_is_kept(start: Start, model: ModelServer) -> None:
    model.default = says(*"abcdef", delay=0.25)
    chat = await start(first_content_timeout=1.0, idle_timeout=1.0)
    received = await chat.stream("hi")
    assert retries(received) == []
    assert text_of(received) == "abcdef"


async def test_thinking_counts_as_content(start: Start, model: ModelServer) -> None:
    async def thinks(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.event("content_block_start", index=1, content_block={"type": "thinking", "thinking": ""})
        for _ in range(8):
            await asyncio.sleep(0.2)
            delta = {"type": "thinking_delta", "thinking": "hm "}
            await exchange.event("content_block_delta", index=1, delta=delta)
        await exchange.text("Yes")
        await exchange.stop()

    model.play([thinks])
    chat = await start(first_content_timeout=1.0, idle_timeout=1.0)
    answer = await chat.post("hi")
    blocks = answer["message"]["content_blocks"]
    assert {"type": "thinking", "thinking": "hm " * 8} in blocks
    assert answer["message"]["content"] == "Yes"


async def test_a_turn_that_takes_too_long(start: Start, model: ModelServer) -> None:
    model.default = says(*"abcdefghijklmnopqrstuvwxyz", delay=0.1)
    chat = await start(turn_timeout=0.5)
    received = await chat.stream("hi")
    error = received[-1].data
    assert (error["type"], error["code"]) == ("error", "turn_timeout")
    message = (await chat.history(received[0].data["session_id"]))["messages"][-1]
    assert message["id"] == error["message_id"]
    assert message["status"] == "interrupted"
    assert message["content"] == text_of(received) != ""
    await until(lambda: model.gone == model.requests)  # the request upstream has ended too


async def test_a_refusal_takes_the_text_back(chat: Chat, model: ModelServer) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("Sure, ", "first")
        await exchange.stop("refusal")

    model.play([refuses])
    received = await chat.stream("hi")
    assert [e.kind for e in received][-2:] == ["reset", "error"]
    assert text_of(received) == ""
    assert received[-1].data["code"] == "upstream_refusal"
    assert received[-1].data["message_id"] is None
    assert [e.seq for e in received] == list(range(1, len(received) + 1))
    history = await chat.history(received[0].data["session_id"])
    assert [m["role"] for m in history["messages"]] == ["user"]
    assert len(model.requests) == 1


@pytest.mark.parametrize("reason", ["max_tokens", "pause_turn", "stop_sequence", "something_new"])
async def test_stop_reasons_are_kept(chat: Chat, model: ModelServer, reason: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("Text")
        await exchange.stop(reason)

    model.play([script])
    answer = await chat.post("hi")
    assert answer["message"]["stop_reason"] == reason
    assert answer["message"]["status"] == "complete"


async def test_an_empty_answer_is_complete_and_never_sent_back(chat: Chat, model: ModelServer) -> None:
    model.play([says()])
    received = await chat.stream("one")
    done = received[-1].data
    assert (done["type"], done["status"], done["length"]) == ("done", "complete", 0)
    session = received[0].data["session_id"]
    assert (await chat.history(session))["messages"][1]["content"] == ""
    await chat.post("two", session)
    assert model.requests[1].messages == [("user", "one"), ("user", "two")]


async def test_unknown_events_blocks_and_deltas_do_no_harm(chat: Chat, model: ModelServer) -> None:
    async def odd(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.event("something_new", payload=[1, 2])
        await exchange.raw(b"data: 42\n\ndata: null\n\ndata: []\n\n: comment\n\nid: 7\n\n")
        await exchange.event("content_block_start", index=1, content_block={"type": "novel", "shape": {"a": "\x00"}})
        await exchange.event("content_block_delta", index=1, delta={"type": "novel_delta", "shape": "round"})
        await exchange.event("content_block_stop", index=1)
        await exchange.event("content_block_delta", index=0, delta={"type": "citations_delta", "citation": {}})
        await exchange.text("Text")
        await exchange.event("message_delta", delta={}, usage=None)
        await exchange.stop()

    model.play([odd])
    answer = await chat.post("hi")
    assert answer["message"]["content"] == "Text"
    assert {"type": "novel", "shape": {"a": "\ufffd"}} in answer["message"]["content_blocks"]


async def test_events_without_a_block_start_or_usage(chat: Chat, model: ModelServer) -> None:
    async def lenient(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event("content_block_delta", delta={"type": "text_delta", "text": "Text"})
        await exchange.event("message_stop")
        await exchange.end()

    model.play([lenient])
    answer = await chat.post("hi")
    assert answer["message"]["content"] == "Text"
    assert answer["message"]["token_usage"] is None
    assert answer["message"]["model"] == "test-model"


async def test_a_refused_prefill_is_no_attempt_and_is_remembered(chat: Chat, model: ModelServer) -> None:
    refusal = fails(400, "invalid_request_error", "This model does not support assistant message prefill.")
    model.play([cut("One two", " "), refusal, says(" three")])
    received = await chat.stream("count")

    assert retries(received) == [(2, "upstream_cut")]
    assert await attempts(chat, received[0].data["turn_id"]) == 2
    assert text_of(received) == "One two  three"
    role, asked = model.requests[2].messages[-1]
    assert role == "user"
    assert "interrupted" in asked
    assert "One two" in asked
    assert model.requests[2].messages[-2] == ("assistant", "One two")

    model.play([cut("A"), says("B")])
    await chat.stream("again")
    assert len(model.requests) == 5
    assert model.requests[-1].messages[-1][0] == "user"


async def test_a_refused_prefill_is_remembered_where_the_next_way_is_cut(chat: Chat, model: ModelServer) -> None:
    model.play([cut("One two"), fails(400), cut(" three"), says(" four")])
    assert text_of(await chat.stream("count")) == "One two three four"
    assert [request.messages[-1][0] for request in model.requests] == ["user", "assistant", "user", "user"]


async def test_a_400_that_is_not_about_the_prefill_fails_the_turn(chat: Chat, model: ModelServer) -> None:
    model.play([cut("One two"), fails(400), fails(400)])
    received = await chat.stream("count")
    assert received[-1].data["code"] == "upstream_refused"
    assert len(model.requests) == 3
    assert chat.turns.llm.refuses_prefill is False


async def test_the_seam_after_white_space_and_an_echo(chat: Chat, model: ModelServer) -> None:
    model.play([cut("One two\n\n"), cut("One two", "\n\n", "three"), says("\n\nfour")])
    received = await chat.stream("count")
    assert text_of(received) == "One two\n\nthree\n\nfour"
    assert model.requests[1].messages[-1] == ("assistant", "One two")
    assert model.requests[2].messages[-1] == ("assistant", "One two\n\nthree")


async def test_hostile_text_is_stored_and_streamed(chat: Chat, model: ModelServer) -> None:
    pieces = ["a\x00b", "\ud800", "\u2028\u2029\x85", "\r\n\r", "data: x\n\n", "\ufeff", "😀", "\\u0000"]
    model.play([says(*pieces)])
    received = await chat.stream("nul \x00 and \ud800")
    expected = "a\ufffdb\ufffd\u2028\u2029\x85\r\n\rdata: x\n\n\ufeff😀\\u0000"
    assert text_of(received) == expected
    messages = (await chat.history(received[0].data["session_id"]))["messages"]
    assert [m["content"] for m in messages] == ["nul \ufffd and \ufffd", expected]


async def test_a_delta_of_a_mebibyte_and_ten_of_them(chat: Chat, model: ModelServer) -> None:
    piece = "0123456789abcdé\n" * (1 << 16)
    model.play([says(*[piece] * 10)])
    received = await chat.stream("hi")
    assert text_of(received) == piece * 10
    assert received[-1].data["length"] == len(piece) * 10


async def test_a_hundred_thousand_small_deltas(chat: Chat, model: ModelServer) -> None:
    pieces = [chr(97 + n % 26) for n in range(100_000)]

    async def flood(exchange: Exchange) -> None:
        await exchange.start()
        for at in range(0, len(pieces), 1000):
            deltas = ({"type": "text_delta", "text": piece} for piece in pieces[at : at + 1000])
            events = ({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas)
            await exchange.raw(b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events))
        await exchange.stop()

    model.play([flood])
    received = await chat.stream("hi")
    assert text_of(received) == "".join(pieces)


async def test_nobody_waits_for_a_body_that_does_not_end(chat: Chat, model: ModelServer) -> None:
    async def open_ended(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("Text")
        await exchange.event("message_stop")
        await asyncio.sleep(10)

    model.play([open_ended])
    begun = time.monotonic()
    assert (await chat.post("hi"))["message"]["content"] == "Text"
    assert time.monotonic() - begun < 5


async def test_an_answer_is_complete_though_its_time_is_over_before_its_body(start: Start, model: ModelServer) -> None:
    async def open_ended(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("Text")
        await exchange.event("message_stop")
        await asyncio.sleep(10)

    model.play([open_ended])
    chat = await start(idle_timeout=END_TIMEOUT / 2)
    received = await chat.stream("hi")
    assert retries(received) == []
    assert (text_of(received), received[-1].kind) == ("Text", "done")


async def test_as_many_turns_at_once_as_are_allowed(start: Start, model: ModelServer) -> None:
    """The SDK's own limit is a hundred connections or a thousand: what is over it would wait and be called stalled."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    model.default = silent
    llm = (await start()).turns.llm
    async with asyncio.TaskGroup() as asking:
        asked = [asking.create_task(read(llm)) for _ in range(1100)]
        await until(lambda: len(model.requests) == len(asked), 30)
        for task in asked:
            task.cancel()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def silent(exchange: Exchange) -> None:
    await exchange.start()
    await asyncio.sleep(60)


async def read(llm: Llm) -> None:
    async for _ in llm.stream(Prompt("", (("user", "hi"),)), Reply()):
        pass


async def test_an_sdk_that_can_not_be_imported_is_tried_again(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, model: ModelServer
) -> None:
    llm = chat.turns.llm
    await llm.warm_up()
    llm.sdk = llm.client = llm.importing = None
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "anthropic", None)
        assert (await chat.stream("hi"))[-1].data["code"] == "internal"
    assert (await chat.stream("hi"))[-1].kind == "done"


async def test_a_stream_cut_at_every_byte(chat: Chat, model: ModelServer) -> None:
    async def slices(exchange: Exchange) -> None:
        await exchange.start()
        delta = {"type": "text_delta", "text": "päd 😀"}
        event = {"type": "content_block_delta", "index": 0, "delta": delta}
        data = f"event: content_block_delta\r\ndata: {json.dumps(event, ensure_ascii=False)}\r\n\r\n".encode()
        for at in range(len(data)):
            await exchange.raw(data[at : at + 1])
            await asyncio.sleep(0)
        await exchange.stop()

    model.play([slices])
    assert (await chat.post("hi"))["message"]["content"] == "päd 😀"
