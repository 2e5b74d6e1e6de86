"""GET /metrics: each metric moves when its thing happens, and tells nobody who is not to know."""

import asyncio
import socket
import time

import pytest
from aiohttp import hdrs
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from chatd.embedded import SETTINGS, Postgres
from chatd.keys import REPO
from chatd.parsing import prices
from tests.chat_client import CHARACTER, Chat, until
from tests.conftest import Start
from tests.model_server import Exchange, ModelServer, fails, says
from tests.sse_client import events
from tests.test_recovery import ORPHANED, sql
from tests.test_stop import ASYNC, begin, one_two, silent, stop
from tests.token_provider import SECRET, bearer, token

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Scrape:
    """What /metrics said once: `scrape("name", label=…)` is the sum of all samples of that name with those labels."""

    def __init__(self, text: str) -> None:
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        found = [
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found)


async def read(chat: Chat, headers: dict[str, str] | None = None, status: int = 200) -> str:
    async with chat.client.get("/metrics", headers={"Host": "localhost"} | (headers or {})) as response:
        assert response.status == status, await response.text()
        text: str = await response.text()
        return text


async def scrape(chat: Chat) -> Scrape:
    return Scrape(await read(chat))


async def test_both_formats(chat: Chat) -> None:
    await chat.post("hi")
    plain = {family.name for family in text_string_to_metric_families(await read(chat))}
    text = await read(chat, {"Accept": OPENMETRICS})
    assert text.endswith("# EOF\n")
    families = openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    modern = {family.name for family in families}
    assert {name.removesuffix("_info") for name in plain} == modern
    assert "_created" not in text


ODD = ["application/openmetrics-text; version=x", "text/plain; version=1.x.", "text/plain;;version==,;=", "\x80é"]


@pytest.mark.parametrize("accept", ODD)
async def test_no_accept_header_is_too_odd(chat: Chat, accept: str) -> None:
    assert "chatd_build_info" in await read(chat, {"Accept": accept})


async def test_a_turn(start: Start, model: ModelServer) -> None:
    chat = await start(prices=prices("test-model=3/15/3.75/0.30"), flush_interval=0)
    model.default = says("one", "two", "three", delay=0.05)
    await chat.post("hi")
    now = await scrape(chat)
    assert now("chatd_turns_begun_total") == now("chatd_turns_total", outcome="done", code="ok") == 1
    assert now("chatd_turns_total") == 1
    assert now("chatd_pieces_total") == 3
    assert now("chatd_first_content_seconds_count") == now("chatd_turn_duration_seconds_count", outcome="done") == 1
    assert 0 < now("chatd_first_content_seconds_sum") < now("chatd_turn_duration_seconds_sum") < 10
    assert now("chatd_turn_duration_seconds_sum") >= 0.15
    commits = now("chatd_commit_duration_seconds_count")
    assert commits == now("chatd_commit_rows_count") == now("chatd_commit_delay_seconds_count")
    assert commits == now("chatd_push_duration_seconds_count") > 0
    assert commits <= now("chatd_commit_rows_sum") <= 3
    assert 0 < now("chatd_commit_duration_seconds_sum") <= now("chatd_commit_delay_seconds_sum")
    used = {kind: now("chatd_tokens_total", model="test-model", kind=kind) for kind in ("input", "output")}
    assert used == {"input": 11, "output": 7}
    assert now("chatd_tokens_total", kind="cache_write") == 5
    assert now("chatd_tokens_total", kind="cache_read") == 3
    cost = (11 * 3 + 7 * 15 + 5 * 3.75 + 3 * 0.30) / 1e6
    assert now("chatd_cost_usd_total", model="test-model") == pytest.approx(cost)
    assert now("chatd_pool_wait_seconds_count") > 3
    assert now("chatd_http_requests_total", method="POST", route="/agent/chat", status="200") == 1
    assert now("chatd_http_request_duration_seconds_count", route="/agent/chat", method="POST") == 1
    assert now("chatd_turns_running") == now("chatd_readers") == now("chatd_uncommitted_characters") == 0


async def test_without_a_price_there_is_no_cost(chat: Chat) -> None:
    await chat.post("hi")
    assert "chatd_cost_usd_total{" not in await read(chat)


async def test_retries_and_failures(chat: Chat, model: ModelServer) -> None:
    model.play([fails(529, "overloaded_error"), fails(500), says("at last")])
    await chat.post("hi")
    model.play([fails(400)])
    await chat.post("hi", status=502)
    now = await scrape(chat)
    assert now("chatd_retries_total", reason="upstream_overloaded") == 1
    assert now("chatd_retries_total", reason="upstream_unavailable") == 1
    assert now("chatd_retries_total") == 2
    assert now("chatd_turns_total", outcome="failed", code="upstream_refused") == 1
    assert now("chatd_turns_total", outcome="done") == 1


async def test_a_turn_that_is_stopped(chat: Chat, model: ModelServer) -> None:
    model.default = one_two
    accepted = await begin(chat)
    (run,) = chat.turns.running.values()
    await until(lambda: "".join(run.log.text) == "One two")
    await stop(chat, accepted["session_id"])
    now = await scrape(chat)
    assert now("chatd_turns_total", outcome="stopped", code="ok") == now("chatd_turns_total") == 1
    assert now("chatd_tokens_total", kind="input") == 11


async def test_a_turn_that_is_taken_over(start: Start, model: ModelServer) -> None:
    model.play([one_two])
    first = await start()
    accepted = await begin(first)
    (run,) = first.turns.running.values()
    await until(lambda: "".join(run.log.text) == "One two")
    await sql(first, f"UPDATE agent_turns SET {ORPHANED}")
    model.default = says(" three")
    second = await start()
    await second.attach(accepted["session_id"], f"{accepted['turn_id']}.1")
    await first.turns.renew()
    await until(lambda: not first.turns.running)
    loser, winner = await scrape(first), await scrape(second)
    assert loser("chatd_turns_lost_total") == winner("chatd_recoveries_total") == winner("chatd_turns_total") == 1
    assert winner("chatd_turns_begun_total") == loser("chatd_turns_total") == 0


async def test_streams_and_readers(chat: Chat, model: ModelServer) -> None:
    model.default = one_two
    async with chat.streaming("hi") as response:
        received = events(response)
        first = await anext(received)
        async with chat.attaching(first.data["session_id"]) as other:
            await anext(events(other))
            now = await scrape(chat)
            assert now("chatd_turns_running") == 1
            assert now("chatd_streams_open") == now("chatd_readers") == 2
            assert now("chatd_write_wait_seconds_count") > 0  # the second one catches up
            assert now("chatd_http_requests_total", route="/agent/chat/stream") == 1
            assert now("chatd_http_request_duration_seconds_count", route="/agent/chat/stream") == 0
        await stop(chat, first.data["session_id"])
    await until(lambda: not chat.turns.running)
    now = await scrape(chat)
    assert now("chatd_streams_open") == now("chatd_readers") == now("chatd_turns_running") == 0


async def test_a_reader_that_is_slow(chat: Chat, model: ModelServer) -> None:
    model.default = says("x" * (4 << 20))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", chat.client.port))
        body = b'{"message": "hi", "character_id": 7}'
        head = f"POST /agent/chat/stream HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        await loop.sock_sendall(sock, head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        await asyncio.sleep(2)
        while await loop.sock_recv(sock, 1 << 20):
            pass
    now = await scrape(chat)
    assert now("chatd_write_wait_seconds_sum") > 0.1  # the last of it fits into the kernel's buffers


OWNER = bearer(token())
TURNS_REACH = [("messages", "rate_messages", 429), ("turns", "rate_turns", 429), ("process_turns", "max_turns", 503)]


async def check_reached(chat: Chat, limit: str) -> None:
    now = await scrape(chat)
    assert now("chatd_limits_reached_total", limit=limit) == now("chatd_limits_reached_total") == 1


@pytest.mark.parametrize(("limit", "setting", "status"), TURNS_REACH)
async def test_a_limit_that_turns_reach(
    start: Start, model: ModelServer, limit: str, setting: str, status: int
) -> None:
    model.default = silent
    chat = await start(auth="jwt", jwt_secret=SECRET, **{setting: 1})
    await chat.post("hi", status=202, headers=OWNER | ASYNC)
    await chat.post("hi", status=status, headers=OWNER)
    await check_reached(chat, limit)


async def test_the_limit_of_tokens(start: Start) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET, rate_tokens=1)
    await chat.post("hi", headers=OWNER)
    await chat.post("hi", status=429, headers=OWNER)
    await check_reached(chat, "tokens")


async def test_the_limit_of_requests(start: Start) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET, rate_messages=1)
    for status in [201] * 10 + [429]:
        await chat.call("POST", "/agent/session", status, json={"character_id": CHARACTER}, headers=OWNER)
    await check_reached(chat, "requests")


async def test_the_limit_of_streams(start: Start, model: ModelServer) -> None:
    model.default = silent
    chat = await start(auth="jwt", jwt_secret=SECRET, rate_streams=1)
    async with chat.client.post("/agent/chat/stream", json=chat.body("hi"), headers=OWNER):
        await chat.call("POST", "/agent/chat/stream", 429, json=chat.body("hi"), headers=OWNER)
    await check_reached(chat, "streams")


async def test_waiting_for_a_connection(start: Start) -> None:
    chat = await start(db_pool=2)
    repo = chat.client.server.app[REPO]
    async with repo.connection(), repo.connection():
        asking = asyncio.create_task(chat.call("GET", "/agent/sessions"))
        await until(lambda: repo.waiting >= 1)
        now = await scrape(chat)
        assert now("chatd_pool_waiting") >= 1
        assert now("chatd_pool_connections") == now("chatd_pool_connections_in_use") == 2
        await asyncio.sleep(0.3)
    await asking
    now = await scrape(chat)
    assert now("chatd_pool_wait_seconds_sum") > 0.25
    assert now("chatd_pool_connections_in_use") < 2


async def test_the_database_is_away(start: Start, postgres: Postgres, model: ModelServer) -> None:
    chat = await start(database_url=postgres.dsn())
    assert (await scrape(chat))("chatd_database_away") == 0
    go_on = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await go_on.wait()
        await exchange.text("Hello")
        await exchange.event("ping")
        await asyncio.sleep(30)

    model.default = script
    accepted = await begin(chat)
    await until(lambda: len(model.requests) == 1)
    await postgres.stop()
    go_on.set()
    await until(lambda: chat.turns.journal.outage.since is not None)
    await asyncio.sleep(0.2)
    now = await scrape(chat)
    assert now("chatd_database_away") == 1
    assert now("chatd_uncommitted_characters") == 5
    assert 0.2 <= now("chatd_uncommitted_age_seconds") < 10
    await postgres.start(SETTINGS)
    await until(lambda: chat.turns.journal.outage.since is None)
    await until(lambda: not chat.turns.journal.pending_size)
    now = await scrape(chat)
    assert now("chatd_database_away") == now("chatd_uncommitted_age_seconds") == 0
    assert now("chatd_commit_delay_seconds_sum") >= 0.2
    await stop(chat, accepted["session_id"])


async def test_a_loop_that_is_late(chat: Chat) -> None:
    before = (await scrape(chat))("chatd_event_loop_lag_seconds_sum")
    time.sleep(0.9)  # noqa: ASYNC251 - that is what it is about
    await asyncio.sleep(0.1)
    assert (await scrape(chat))("chatd_event_loop_lag_seconds_sum") - before > 0.3


async def test_requests(chat: Chat) -> None:
    await chat.call("GET", "/nothing/a-canary", 404)
    await chat.call("GET", "/agent/session/nonsense", 404)
    await chat.call("PUT", "/agent/sessions", 405)
    async with chat.client.request("CANARY", "/agent/sessions") as response:
        assert response.status in {400, 405}
    text = await read(chat)
    now = Scrape(text)
    assert "canary" not in text.lower()
    assert now("chatd_http_requests_total", route="none", status="404") == 1
    assert now("chatd_http_requests_total", route="/agent/session/{session_id}", method="GET", status="404") == 1
    methods = {sample.labels["method"] for sample in now.samples if "method" in sample.labels}
    assert methods <= hdrs.METH_ALL | {"other"}


async def test_the_process(start: Start) -> None:
    chat = await start()
    now = await scrape(chat)
    assert now("chatd_build_info") == 1
    assert now("process_open_fds") > 3
    assert now("chatd_draining") == 0
    chat.turns.draining = True
    assert (await scrape(chat))("chatd_draining") == 1
    chat.turns.draining = False
