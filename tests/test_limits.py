"""What one owner may have: counted by several processes at once, refused before anything is written, given back."""

import asyncio
import signal
import time
from collections import Counter
from typing import Any

import pytest

from chatd import limits
from chatd.config import Config, read_config
from chatd.embedded import SETTINGS, Postgres
from chatd.errors import InDoubt, RateLimited
from chatd.keys import LIMITS
from chatd.limits import AMinute, count_tokens
from chatd.sweeps import sweep_once
from tests.chat_client import CHARACTER, Chat, until
from tests.conftest import Start
from tests.model_server import Exchange, ModelServer, fails, says
from tests.server_process import ServerProcess, serving
from tests.sse_client import read_all
from tests.test_recovery import sql
from tests.test_stop import ASYNC, silent
from tests.token_provider import SECRET, bearer, token

RUNNING = "SELECT count(*) FROM agent_turns WHERE outcome IS NULL"
ROWS = """SELECT (SELECT count(*) FROM agent_sessions) + (SELECT count(*) FROM agent_messages)
    + (SELECT count(*) FROM agent_turns) + (SELECT count(*) FROM agent_idempotency_keys)"""


class Owner:
    """Somebody with a token, at a chatd; answers are (status, body, headers)."""

    def __init__(self, chat: Chat, name: str = "alice") -> None:
        self.chat, self.headers = chat, bearer(token(name))

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        headers = self.headers | headers
        async with self.chat.client.request(method, path, json=body, headers=headers) as response:
            text = await response.text()
            is_json = text and response.content_type != "text/event-stream"
            return response.status, await response.json(content_type=None) if is_json else text, response.headers

    async def begin(self, session: str | None = None, **headers: str) -> tuple[int, Any, Any]:
        return await self.ask("POST", "/agent/chat", self.chat.body("hi", session), **ASYNC, **headers)

    async def wait(self, session: str | None = None) -> tuple[int, Any, Any]:
        return await self.ask("POST", "/agent/chat", self.chat.body("hi", session))

    async def session(self) -> str:
        status, body, _ = await self.ask("POST", "/agent/session", {"character_id": CHARACTER})
        assert status == 201
        return str(body["session_id"])

    async def stop(self, session: str) -> None:
        assert (await self.ask("POST", f"/agent/chat/stop/{session}"))[0] == 200


@pytest.fixture
def limited(start: Start) -> Start:
    """Return what starts a chatd with tokens, without limits but those that are given."""

    async def limited(**changes: Any) -> Chat:
        return await start(auth="jwt", jwt_secret=SECRET, **changes)

    return limited


# Turns at once


async def test_two_processes_never_run_more_and_use_all_there_is(limited: Start, model: ModelServer) -> None:
    model.default = silent
    one, two = await limited(rate_turns=4), await limited(rate_turns=4)
    alices = [Owner(one), Owner(two)]
    answers = await asyncio.gather(*(alices[n % 2].begin() for n in range(30)))
    assert Counter(status for status, _, _ in answers) == {202: 4, 429: 26}
    assert await sql(one, RUNNING) == 4
    assert await sql(one, ROWS) == 3 * 4
    assert await sql(one, "SELECT array_agg(slot ORDER BY slot) FROM agent_turns") == [1, 2, 3, 4]

    others = await asyncio.gather(*(Owner(chat, name).begin() for chat in (one, two) for name in ("bob", "carol")))
    assert [status for status, _, _ in others] == [202] * 4
    for status, body, _ in answers:
        if status == 202:
            await alices[0].stop(body["session_id"])
    assert await sql(one, RUNNING + " AND slot_owner = 'alice'") == 0
    answers = await asyncio.gather(*(alices[n % 2].begin() for n in range(10)))
    assert Counter(status for status, _, _ in answers)[202] == 4


async def test_nor_while_turns_come_and_go(limited: Start, model: ModelServer) -> None:
    model.default = says("a", "b", delay=0.02)
    one, two = [await limited(rate_turns=3, rate_tokens=10**9) for _ in range(2)]
    alices = [Owner(one), Owner(two)]
    seen: list[int] = []
    ends = time.monotonic() + 3

    async def watch() -> None:
        while time.monotonic() < ends:
            seen.append(await sql(one, RUNNING))

    async def ask(number: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        while time.monotonic() < ends:
            statuses[(await alices[number % 2].wait())[0]] += 1
        return statuses

    watching = asyncio.create_task(watch())
    counts = await asyncio.gather(*(ask(number) for number in range(12)))
    await watching
    statuses = sum(counts, Counter[int]())
    assert set(statuses) == {200, 429}
    assert max(seen) == 3
    assert await sql(one, RUNNING) == 0
    assert await sql(one, "SELECT count(*) FROM agent_turns") == statuses[200]
    assert await sql(one, "SELECT sum(tokens) FROM agent_usage") == 26 * statuses[200]


async def test_a_slot_is_free_again_however_its_turn_ends(limited: Start, model: ModelServer) -> None:
    chat = await limited(rate_turns=1, db_pool=2)
    alice = Owner(chat)
    session = await alice.session()
    for script, status in ((says("hi"), 200), (fails(400), 502), (says("hi"), 200)):
        model.play([script])
        assert (await alice.wait(session))[0] == status
    model.default = silent
    for _ in range(2):
        assert (await alice.begin(session))[0] == 202
        assert (await alice.begin())[0] == 429
        await alice.stop(session)
    assert (await alice.begin(session))[0] == 202
    assert (await alice.ask("DELETE", f"/agent/session/{session}"))[0] == 204
    assert (await alice.begin())[0] == 202


async def test_a_doubtful_turn_that_is_undone_leaves_its_slot(limited: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = await limited(rate_turns=1)
    repo = chat.turns.repo
    begin = repo.begin_turn

    async def lose_the_answer(*values: Any) -> None:
        await begin(*values)
        raise InDoubt(backend=999_999)

    monkeypatch.setattr(repo, "begin_turn", lose_the_answer)
    assert (await Owner(chat).begin())[0] == 503
    await until(lambda: not chat.turns.running)
    monkeypatch.undo()
    assert (await Owner(chat).wait())[0] == 200


async def test_a_turn_that_is_taken_over_keeps_its_slot(limited: Start, config: Config, model: ModelServer) -> None:
    """One process is killed; another one goes on with its turn, and a third one counts it."""
    model.default = silent
    third = await limited(rate_turns=1, data_dir=config.data_dir / "elsewhere")
    environment = {
        "DATABASE_URL": str(config.database_url),
        "CHATD_DATA_DIR": str(config.data_dir / "here"),
        "ANTHROPIC_API_KEY": "sk-1",
        "ANTHROPIC_BASE_URL": model.url,
        "CHATD_AUTH": "jwt",
        "CHATD_JWT_SECRET": SECRET,
        "CHATD_RATE_TURNS": "1",
    }
    killed = ServerProcess(None, **environment)
    async with serving(killed) as first:
        session = (await Owner(first).begin())[1]["session_id"]
        await killed.end(signal.SIGKILL)
    async with serving(ServerProcess(None, **environment)) as second:
        async with asyncio.timeout(10):
            while await sql(third, "SELECT epoch FROM agent_turns") == 1:
                await asyncio.sleep(0.05)
        for chat in (second, third):
            assert (await Owner(chat).begin())[0] == 429
        await Owner(third).stop(session)
        assert (await Owner(second).begin())[0] == 202


async def test_what_else_is_wrong_is_told_first(limited: Start, model: ModelServer) -> None:
    """A foreign session looks like one that is missing, a busy one like a busy one, whichever limit is reached."""
    model.default = silent
    chat = await limited(rate_turns=1, rate_tokens=1)
    alice, bob = Owner(chat), Owner(chat, "bob")
    idle, foreign = await alice.session(), await bob.session()
    begun = (await alice.begin())[1]
    await sql(chat, "INSERT INTO agent_usage VALUES ((now() AT TIME ZONE 'UTC')::date, 'alice', 1)")
    before = await sql(chat, ROWS)
    status, body, _ = await alice.begin(begun["session_id"])
    assert (status, body["code"], body["turn_id"]) == (409, "turn_in_progress", begun["turn_id"])
    missing = await alice.begin(f"sess-{'0' * 32}")
    assert missing[0] == 404
    assert missing[1] == (await alice.begin(foreign))[1]
    other = chat.body("hi", idle) | {"character_id": 8}
    assert (await alice.ask("POST", "/agent/chat", other))[1]["code"] == "character_forbidden"
    assert (await alice.begin(idle))[1]["code"] == "rate_limited"
    assert await sql(chat, ROWS) == before
    assert await sql(chat, "SELECT status FROM agent_sessions WHERE id = $1", idle) == "idle"


async def test_a_lower_limit_counts_what_runs_beyond_it(limited: Start, model: ModelServer) -> None:
    model.default = silent
    high = await limited(rate_turns=6)
    for _ in range(6):
        assert (await Owner(high).begin())[0] == 202
    await sql(high, "DELETE FROM agent_turns WHERE slot = 1")
    assert (await Owner(await limited(rate_turns=2)).begin())[0] == 429


async def test_two_requests_for_a_session_at_once(limited: Start, model: ModelServer) -> None:
    model.default = silent
    chat = await limited(rate_turns=50)
    alice = Owner(chat)
    for _ in range(10):
        session = await alice.session()
        answers = await asyncio.gather(*(alice.begin(session) for _ in range(4)))
        assert Counter(status for status, _, _ in answers) == {202: 1, 409: 3}


# What refusals and answers tell


async def test_messages_a_minute(limited: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MINUTE", 2)
    chat = await limited(rate_messages=3, rate_turns=9)
    alice = Owner(chat)
    for left in (2, 1, 0):
        status, _, headers = await alice.wait()
        assert status == 200
        assert headers["RateLimit-Policy"] == '"messages";q=3;w=2, "turns";q=9'
        assert headers["RateLimit"] in {f'"messages";r={left};t={t}, "turns";r=8' for t in (1, 2)}
        assert "Retry-After" not in headers
    before = await sql(chat, ROWS)
    for path in ("/agent/chat", "/agent/chat/stream"):
        status, body, headers = await alice.ask("POST", path, chat.body("hi"))
        assert (status, body["code"], body["status"]) == (429, "rate_limited", 429)
        assert headers["RateLimit"].endswith(f"t={headers['Retry-After']}")
        assert headers["RateLimit-Policy"] == '"messages";q=3;w=2'
        assert headers["RateLimit"] in {'"messages";r=0;t=1', '"messages";r=0;t=2'}
    assert (await alice.ask("POST", "/agent/chat", {}))[0] == 400
    assert await sql(chat, ROWS) == before
    assert (await Owner(chat, "bob").wait())[0] == 200
    await asyncio.sleep(int(headers["Retry-After"]))
    assert (await alice.wait())[0] == 200


async def test_sessions_and_tickets_are_counted_by_themselves(limited: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatd.limits.REQUESTS", 1)
    chat = await limited(rate_messages=2)
    alice = Owner(chat)
    session = await alice.session()
    assert (await alice.ask("POST", "/agent/stream-ticket", {"session_id": session}))[0] == 201
    for path, body in (
        ("/agent/session", {"character_id": CHARACTER}),
        ("/agent/stream-ticket", {"session_id": session}),
    ):
        status, problem, headers = await alice.ask("POST", path, body)
        assert (status, problem["code"]) == (429, "rate_limited")
        assert headers["RateLimit-Policy"] == '"requests";q=2;w=60'
        assert 1 <= int(headers["Retry-After"]) <= 60
    assert (await alice.wait(session))[0] == 200


async def test_a_repeated_request_is_answered_where_a_limit_is_reached(limited: Start, model: ModelServer) -> None:
    model.default = silent
    key = {"Idempotency-Key": "k-1"}
    for changes in ({"rate_turns": 1}, {"rate_messages": 1}, {"max_turns": 1}):
        chat = await limited(**changes)
        alice = Owner(chat, f"alice-{changes}")
        status, begun, _ = await alice.begin(**key)
        assert status == 202
        assert (await alice.begin())[0] in {429, 503}
        status, again, headers = await alice.begin(**key)
        assert (status, again, headers["Idempotency-Replayed"]) == (202, begun, "true")
        other = await alice.ask("POST", "/agent/chat", chat.body("other"), **key)
        assert other[1]["code"] == "idempotency_mismatch"
        assert (await alice.begin(**{"Idempotency-Key": "k-2"}))[0] in {429, 503}


async def test_all_turns_of_a_process(limited: Start, model: ModelServer) -> None:
    model.default = silent
    chat = await limited(max_turns=2)
    for name in ("alice", "bob"):
        session = (await Owner(chat, name).begin())[1]["session_id"]
    before = await sql(chat, ROWS)
    status, body, headers = await Owner(chat, "carol").begin()
    assert (status, body["code"]) == (503, "unavailable")
    assert int(headers["Retry-After"]) >= 1
    assert await sql(chat, ROWS) == before
    await Owner(chat, "bob").stop(session)
    assert (await Owner(chat, "carol").begin())[0] == 202


# Streams at once


async def test_streams_at_once(limited: Start, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.1)
    chat = await limited(rate_streams=2)
    alice = Owner(chat)
    session = await alice.session()
    ticket = (await alice.ask("POST", "/agent/stream-ticket", {"session_id": session}))[1]["ticket"]
    attach, body = f"/agent/chat/stream/{session}", chat.body("hi", session)
    async with chat.client.post("/agent/chat/stream", json=body, headers=alice.headers) as first:
        assert first.headers["RateLimit"] == '"streams";r=1'
        async with chat.client.get(f"{attach}?ticket={ticket}") as second:
            assert second.headers["RateLimit"] == '"streams";r=0'
            before = await sql(chat, ROWS)
            status, problem, headers = await alice.ask("POST", "/agent/chat/stream", chat.body("hi"))
            assert (status, problem["code"], headers["RateLimit"]) == (429, "rate_limited", '"streams";r=0')
            assert headers["Retry-After"] == "1"
            assert await sql(chat, ROWS) == before
            assert (await alice.ask("GET", attach))[0] == 429
            async with chat.client.get(f"{attach}?ticket={ticket}") as third:
                assert third.status == 429
            assert (await Owner(chat, "bob").ask("POST", "/agent/chat/stream", chat.body("hi")))[0] == 200
            await read_all(second)
        await read_all(first)
    held = chat.client.server.app[LIMITS].streams.held
    await until(lambda: not held)
    assert (await alice.ask("GET", attach))[0] == 204
    assert (await alice.ask("POST", "/agent/chat/stream", {}))[0] == 400
    assert not held


async def test_a_client_that_is_gone_has_no_stream(limited: Start, model: ModelServer) -> None:
    async def talks(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text(*("word " for _ in range(1000)), delay=0.02)

    model.default = talks
    chat = await limited(rate_streams=1)
    alice = Owner(chat)
    response = await chat.client.post("/agent/chat/stream", json=chat.body("hi"), headers=alice.headers)
    await response.content.readline()
    response.close()
    await until(lambda: not chat.client.server.app[LIMITS].streams.held)


async def test_those_that_wait_for_the_database_are_counted(limited: Start, postgres: Postgres) -> None:
    chat = await limited(rate_streams=1, database_url=postgres.dsn(), heartbeat=0.1)
    alice = Owner(chat)
    session = await alice.session()
    ticket = (await alice.ask("POST", "/agent/stream-ticket", {"session_id": session}))[1]["ticket"]
    await postgres.stop()
    path = f"/agent/chat/stream/{session}"
    async with (
        chat.client.get(path, headers=alice.headers) as waiting,
        chat.client.get(f"{path}?ticket={ticket}") as unknown,
    ):
        assert (waiting.status, unknown.status) == (200, 200)
        assert (await alice.ask("GET", path))[0] == 429
        await postgres.start(SETTINGS)
        assert b"data:" not in await unknown.read()
        assert b"data:" not in await waiting.read()
    await until(lambda: not chat.client.server.app[LIMITS].streams.held)


# Tokens a day


async def test_tokens_a_day(limited: Start) -> None:
    """An answer of the test's model costs 11 + 5 + 3 tokens in and 7 out."""
    chat = await limited(rate_tokens=30)
    alice = Owner(chat)
    for left in (30, 4):
        status, body, headers = await alice.wait()
        assert status == 200
        assert headers["RateLimit-Policy"] == '"tokens";q=30;w=86400'
        assert headers["RateLimit"].startswith(f'"tokens";r={left};t=')
    before = await sql(chat, ROWS)
    status, body, headers = await alice.wait()
    assert (status, body["code"]) == (429, "rate_limited")
    assert headers["RateLimit"].startswith('"tokens";r=0;t=')
    assert abs(int(headers["Retry-After"]) - (86_400 - time.time() % 86_400)) < 5
    assert await sql(chat, ROWS) == before
    assert (await Owner(chat, "bob").wait())[0] == 200
    assert await sql(chat, "SELECT array_agg(owner || ' ' || tokens ORDER BY owner) FROM agent_usage") == [
        "alice 52",
        "bob 26",
    ]
    await sql(chat, "UPDATE agent_usage SET day = day - 1 WHERE owner = 'alice'")
    assert (await alice.wait())[0] == 200
    await sql(chat, "UPDATE agent_usage SET day = day - 1 WHERE owner = 'alice' AND tokens = 52")
    await sweep_once(chat.turns.repo, 3600)
    assert await sql(chat, "SELECT array_agg(tokens ORDER BY tokens) FROM agent_usage") == [26, 26]


async def test_what_a_failed_turn_used_counts(limited: Start, model: ModelServer) -> None:
    async def breaks_off(exchange: Exchange) -> None:
        await exchange.start(input_tokens=100)
        exchange.reset()

    model.default = breaks_off
    chat = await limited(rate_tokens=1000)
    assert (await Owner(chat).wait())[0] == 502
    assert await sql(chat, "SELECT tokens FROM agent_usage") == 3 * (100 + 5 + 3 + 1)


async def test_a_turn_that_is_stopped_before_a_word_counts_its_prompt(limited: Start, model: ModelServer) -> None:
    async def says_nothing(_: Exchange) -> None:
        await asyncio.sleep(30)

    model.default = says_nothing
    chat = await limited(rate_tokens=1000)
    alice = Owner(chat)
    session = await alice.session()
    await alice.ask("POST", "/agent/chat", chat.body("x" * 600, session), **ASYNC)
    await until(lambda: bool(model.requests))
    await alice.stop(session)
    assert 200 <= await sql(chat, "SELECT tokens FROM agent_usage") < 250


async def test_usage_that_can_not_be(limited: Start, model: ModelServer) -> None:
    async def boasts(exchange: Exchange) -> None:
        await exchange.start(input_tokens=1e308, cache_read_input_tokens=-5, cache_creation_input_tokens="many")
        await exchange.text("hi")
        await exchange.stop(output_tokens=10**40)

    model.default = boasts
    chat = await limited(rate_tokens=10**15)
    assert (await Owner(chat).wait())[0] == 200
    assert await sql(chat, "SELECT tokens FROM agent_usage") == 2 * 10**9


def test_tokens_are_counted_where_they_are_numbers() -> None:
    assert count_tokens(None) == 0
    assert count_tokens({"input_tokens": 3, "output_tokens": 2}, "x" * 40) == 13
    assert count_tokens({"input_tokens": 3, "output_tokens": 20}, "x" * 40) == 23
    assert count_tokens({"input_tokens": 3.7, "output_tokens": True, "cache_read_input_tokens": None, "x": 5}) == 3
    assert count_tokens({"input_tokens": float("nan"), "output_tokens": float("inf")}) == 10**9


# Without limits, and what is remembered


async def test_without_tokens_there_are_no_limits(start: Start, model: ModelServer) -> None:
    chat = await start()
    model.default = silent
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(chat.post("hi", status=202, headers=ASYNC)) for _ in range(70)]
    assert len({task.result()["turn_id"] for task in tasks}) == 70
    assert await sql(chat, "SELECT count(slot) + count(slot_owner) FROM agent_turns") == 0
    model.default = says("hi")
    async with chat.streaming("hi") as response:
        assert "RateLimit" not in response.headers
    assert await sql(chat, "SELECT count(*) FROM agent_usage") == 0


def test_the_settings() -> None:
    def read(**settings: str) -> tuple[int, ...]:
        config = read_config(settings)
        return config.rate_messages, config.rate_turns, config.rate_streams, config.rate_tokens, config.max_turns

    jwt = {"CHATD_AUTH": "jwt", "CHATD_JWT_SECRET": SECRET}
    assert read() == (0, 0, 0, 0, 2000)
    assert read(CHATD_RATE_TURNS="3") == (0, 3, 0, 0, 2000)
    assert read(**jwt) == (60, 4, 20, 0, 2000)
    assert read(**jwt, CHATD_RATE_MESSAGES="0", CHATD_RATE_TURNS="7", CHATD_RATE_TOKENS="9") == (0, 7, 20, 9, 2000)


def test_only_owners_of_the_last_minute_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("chatd.limits.time.monotonic", lambda: now)
    window = AMinute("messages", 5)
    for number in range(20_000):
        now += 0.1
        window.count(f"owner-{number}")
    assert len(window.owners) <= 601
    for _ in range(4):
        now += 10
        window.count("busy")
    for _ in range(1000):
        now += 7.5
        for _ in range(10):
            try:
                window.count("busy")
            except RateLimited:
                assert len(window.owners["busy"]) == 5
    assert len(window.owners) == 1


def test_no_minute_has_more() -> None:
    """Neither one that begins in the middle of another."""
    counted: list[float] = []
    window = AMinute("messages", 60)
    with pytest.MonkeyPatch.context() as patch:
        for tenth in range(2000):
            patch.setattr("chatd.limits.time.monotonic", lambda now=tenth / 10: now)
            try:
                window.count("alice")
            except RateLimited as refused:
                assert 1 <= int(refused.more_headers["Retry-After"]) <= 60
            else:
                counted.append(tenth / 10)
    assert all(later - earlier > 59.99 for earlier, later in zip(counted, counted[60:], strict=False))
    assert len(counted) == 60 * 4
