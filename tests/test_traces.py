"""Traces: a real receiver of OTLP, what it is sent, and that nothing depends on its being there."""

import asyncio
import json
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chatd.config import Config
from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.model_server import USAGE, Exchange, ModelServer, fails, says
from tests.otlp_receiver import Receiver, Span
from tests.server_process import ServerProcess, run, serving
from tests.test_recovery import sql
from tests.test_stop import begin, begun_elsewhere, silent, stop

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture
async def traced(start: Start, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Chat:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    return await start(otlp_endpoint=receiver.url)


async def the_turn(receiver: Receiver, count: int = 1) -> Span:
    await until(lambda: len(receiver.turns()) == count)
    return receiver.turns()[-1]


async def test_a_turn_is_a_span_with_one_for_its_attempt(traced: Chat, receiver: Receiver, model: ModelServer) -> None:
    answer = await traced.post("hi")
    turn = await the_turn(receiver)
    assert turn.attributes == {
        "gen_ai.conversation.id": answer["session_id"],
        "chatd.turn.id": answer["turn_id"],
        "chatd.turn.recoveries": 0,
        "chatd.turn.outcome": "done",
        "chatd.turn.attempts": 1,
    }
    assert (turn.kind, turn.parent, turn.failed) == ("SERVER", "", False)
    assert (turn.resource["service.name"], turn.resource["deployment.environment.name"]) == ("chatd", "test")
    (attempt,) = receiver.attempts(turn)
    assert (attempt.name, attempt.kind, attempt.failed) == ("chat test-model", "CLIENT", False)
    assert attempt.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.conversation.id": answer["session_id"],
        "gen_ai.request.model": "test-model",
        "gen_ai.request.max_tokens": 4096,
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "test-model",
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.usage.input_tokens": 11 + 3 + 5,  # all of them, as the conventions want it
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.cache_creation.input_tokens": 5,
        "gen_ai.usage.output_tokens": 7,
        "server.address": "127.0.0.1",
        "server.port": int(model.url.rpartition(":")[2]),
        "chatd.attempt": 1,
    }


async def test_retries_are_attempts_of_one_turn(traced: Chat, receiver: Receiver, model: ModelServer) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("Hel")
        exchange.reset()

    model.play([fails(529), cut, says("lo")])
    await traced.post("hi")
    turn = await the_turn(receiver)
    assert (turn.attributes["chatd.turn.attempts"], turn.failed) == (3, False)
    attempts = receiver.attempts(turn)
    told = [(span.attributes.get("error.type"), span.failed) for span in attempts]
    assert told == [("upstream_overloaded", True), ("upstream_cut", True), (None, False)]
    outputs = [span.attributes.get("gen_ai.usage.output_tokens") for span in attempts]
    assert outputs == [None, USAGE["output_tokens"], 7]


async def test_a_turn_that_fails_or_is_stopped(traced: Chat, receiver: Receiver, model: ModelServer) -> None:
    model.default = fails(401)
    await traced.post("hi", status=502)
    turn = await the_turn(receiver)
    assert (turn.failed, turn.attributes["error.type"]) == (True, "upstream_refused")
    assert turn.attributes["chatd.turn.outcome"] == "failed"
    model.default = silent
    session = (await begin(traced))["session_id"]
    await until(lambda: len(model.requests) == 2)
    await stop(traced, session)
    turn = await the_turn(receiver, 2)
    assert (turn.failed, turn.attributes["chatd.turn.outcome"]) == (False, "stopped")
    (attempt,) = receiver.attempts(turn)
    assert not attempt.failed
    assert "error.type" not in attempt.attributes


async def test_a_turn_is_part_of_its_callers_trace(traced: Chat, receiver: Receiver) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "canary=canary"}
    await traced.post("hi", headers=headers)
    turn = await the_turn(receiver)
    assert (turn.trace, turn.parent) == (TRACE, PARENT)
    assert receiver.attempts(turn)
    assert "canary" not in turn.text
    await traced.post("hi", headers={"traceparent": "canary"})
    turn = await the_turn(receiver, 2)
    assert (turn.trace != TRACE, turn.parent) == (True, "")


async def test_a_caller_that_does_not_sample_is_not_traced(traced: Chat, receiver: Receiver) -> None:
    await traced.post("hi", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    await traced.post("hi")
    await the_turn(receiver)
    assert [span for span in receiver.spans if span.trace == TRACE] == []


async def test_nothing_that_anybody_wrote_is_in_a_span(traced: Chat, receiver: Receiver, model: ModelServer) -> None:
    async def odd(exchange: Exchange) -> None:
        await exchange.head(headers={"request-id": "canary"})
        usage = {"input_tokens": "canary", "canary": 1, "output_tokens": 3}
        message = {"id": "canary", "model": "canary says", "role": "assistant", "content": [], "usage": usage}
        await exchange.event("message_start", message=message)
        await exchange.event("content_block_start", index=0, content_block={"type": "text", "text": "canary"})
        await exchange.stop("canary")

    model.play([fails(400, "canary", "canary"), odd])
    session = (await traced.session(title="canary", system_prompt="canary"))["session_id"]
    await traced.post("canary", session, status=502)
    await traced.post("canary", session, headers={"Idempotency-Key": "canary"})
    await the_turn(receiver, 2)
    assert len(receiver.spans) == 4
    assert not [span.text for span in receiver.spans if "canary" in span.text]


def traced_server(config: Config, **environment: Any) -> ServerProcess:
    return ServerProcess(
        DATABASE_URL=str(config.database_url),
        CHATD_DATA_DIR=str(config.data_dir),
        ANTHROPIC_BASE_URL=str(config.base_url),
        CHATD_LOG_FORMAT="json",
        CHATD_DRAIN_TIMEOUT="0",
        OTEL_BSP_SCHEDULE_DELAY="20",
        OTEL_EXPORTER_OTLP_HEADERS="canary canary, authorization=Bearer%20canary",
        **environment,
    )


async def test_a_recovered_turn_has_another_span(config: Config, receiver: Receiver, model: ModelServer) -> None:
    model.default = silent
    server = traced_server(config, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    async with serving(server) as chat:
        begun = await begin(chat)
        await until(lambda: len(model.requests) == 1)
    left = await the_turn(receiver)
    assert left.attributes["chatd.turn.outcome"] == "handed_over"
    model.default = says("An end.")
    async with serving(server):
        turn = await the_turn(receiver, 2)
    assert turn.attributes["chatd.turn.id"] == left.attributes["chatd.turn.id"] == begun["turn_id"]
    assert (turn.attributes["chatd.turn.recoveries"], turn.attributes["chatd.turn.outcome"]) == (1, "done")
    assert (turn.kind, turn.parent) == ("INTERNAL", "")
    assert len(receiver.attempts(turn)) == 1


async def test_a_receiver_that_is_away_holds_nothing_up(config: Config, receiver: Receiver) -> None:
    """It is told of once, and once that it is back; the end waits a moment for what is left."""
    receiver.status = 503
    server = traced_server(config, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_TIMEOUT="1")
    async with serving(server) as chat:
        for _ in range(20):
            await chat.post("hi")
        await until(lambda: "traces.away" in server.log)
        receiver.status = 200
        await chat.post("hi")
        await until(lambda: "traces.back" in server.log)
        receiver.status = 503
        await chat.post("hi")
        begun = time.monotonic()
        await server.end(signal.SIGTERM)
        assert time.monotonic() - begun < 5
    assert "canary" not in server.log
    lines = [json.loads(line) for line in server.log.splitlines()]
    told = [(line["event"], line["server"]) for line in lines if line.get("event", "").startswith("traces.")]
    assert told[:2] == [("traces.away", receiver.url), ("traces.back", receiver.url)]
    assert len(told) <= 3
    assert not [line for line in lines if "opentelemetry" in line["logger"]]


HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
sys.argv[1:] = ["serve"]
from chatd.__main__ import main
main()
"""


async def test_what_is_not_installed_is_told(config: Config) -> None:
    environment: dict[str, Any] = {
        "DATABASE_URL": str(config.database_url),
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HIDE), env=ServerProcess(**environment).environment, stderr=asyncio.subprocess.PIPE
    )
    _, told = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert told.decode() == (
        "chatd: OTEL_EXPORTER_OTLP_ENDPOINT: traces need some more packages: pip install 'chatd[otel]'\n"
    )


async def test_a_wrong_setting_of_the_sdk_is_told(config: Config, tmp_path: Path) -> None:
    environment = {
        "DATABASE_URL": str(config.database_url),
        "ANTHROPIC_BASE_URL": str(config.base_url),
        "CHATD_DATA_DIR": str(tmp_path),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_BSP_MAX_QUEUE_SIZE": "0",
    }
    status, told = await run("serve", **environment)
    assert (status, told.splitlines()[-1]) == (
        2,
        "chatd: a setting of OpenTelemetry (OTEL_…) is wrong: max_queue_size must be a positive integer.",
    )


async def test_without_an_endpoint_nothing_is_imported() -> None:
    code = "import sys, chatd.__main__, chatd.app; print([name for name in sys.modules if 'opentelemetry' in name])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert out.decode().strip() == "[]"


async def test_a_turn_that_is_taken_to_be_stopped_is_not_in_the_stoppers_trace(
    start: Start, config: Config, receiver: Receiver, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setattr("chatd.turns.OBEY_TIMEOUT", 0.3)
    one, two, session, _ = await begun_elsewhere(start, config, model, otlp_endpoint=receiver.url)
    await sql(one, "UPDATE agent_turns SET boot_id = $1, epoch = 2", uuid.uuid4())  # hangs somewhere, lease and all
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert (await two.call("POST", f"/agent/chat/stop/{session}", headers=headers))["stopped"]
    await until(lambda: any(span.attributes["chatd.turn.outcome"] == "stopped" for span in receiver.turns()))
    assert not [span for span in receiver.spans if span.trace == TRACE]
