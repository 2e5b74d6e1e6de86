"""History pages and sessions."""

import re
from typing import Any

import pytest

from tests.chat_client import CHARACTER, Chat
from tests.model_server import ModelServer, says


async def fill(chat: Chat, count: int) -> str:
    """Return a session of `count` messages, contents "0", "1" and so on."""
    session = str((await chat.session())["session_id"])
    async with chat.turns.repo.connection() as conn:
        await conn.execute(
            """INSERT INTO agent_messages (id, session_id, role, content)
               SELECT 'msg-' || md5($1 || n), $1, CASE n % 2 WHEN 0 THEN 'user' ELSE 'assistant' END, n::text
               FROM generate_series(0, $2 - 1) AS series (n) ORDER BY series.n""",
            session,
            count,
        )
        await conn.execute("UPDATE agent_sessions SET message_count = $2 WHERE id = $1", session, count)
    return session


def contents(page: dict[str, Any]) -> list[int]:
    return [int(message["content"].strip("\x01")) for message in page["messages"]]


async def test_a_message_looks_the_same_wherever_it_is_shown(chat: Chat, model: ModelServer) -> None:
    """The history's JSON is written by the database, an answer's by the schema."""
    model.default = says('q" \\ \u2028 \U0001f600', "\n\x85\t")
    answer = await chat.post("hi")
    page = await chat.history(answer["session_id"])
    assert page["messages"][1] == answer["message"]
    assert page["messages"][0]["content_blocks"] == [{"type": "text", "text": "hi"}]


async def test_pages_backwards_meet_without_gap_or_repeat(chat: Chat) -> None:
    session = await fill(chat, 25)
    page = await chat.history(session, limit=10)
    assert (page["session_id"], page["status"], page["message_count"]) == (session, "idle", 25)
    assert contents(page) == list(range(15, 25))
    page = await chat.history(session, limit=10, before=page["before"])
    assert contents(page) == list(range(5, 15))
    page = await chat.history(session, limit=10, before=page["before"])
    assert contents(page) == list(range(5))
    assert page["before"] is None


async def test_a_page_that_ends_at_the_first_message_has_no_page_before(chat: Chat) -> None:
    session = await fill(chat, 10)
    assert (await chat.history(session, limit=10))["before"] is None
    assert contents(await chat.history(session)) == list(range(10))


async def test_pages_forwards(chat: Chat) -> None:
    session = await fill(chat, 12)
    oldest = (await chat.history(session))["messages"][0]["id"]
    page = await chat.history(session, limit=5, after=oldest)
    assert contents(page) == [1, 2, 3, 4, 5]
    page = await chat.history(session, limit=50, after=page["messages"][-1]["id"])
    assert contents(page) == list(range(6, 12))
    assert contents(await chat.history(session, after=page["messages"][-1]["id"])) == []


@pytest.mark.parametrize(("character", "times"), [(" ", 1_200_000), ("\x01", 200_000)])
async def test_a_page_ends_early_where_its_messages_are_huge(chat: Chat, character: str, times: int) -> None:
    """As JSON, that is, where some characters are six, and each is there twice."""
    session = await fill(chat, 3)
    async with chat.turns.repo.connection() as conn:
        await conn.execute(
            "UPDATE agent_messages SET content = content || repeat($2, $3) WHERE session_id = $1",
            *(session, character, times),
        )
    latest = await chat.history(session)
    assert contents(latest) == [1, 2]
    first = await chat.history(session, before=latest["before"])
    assert (contents(first), first["before"]) == ([0], None)
    assert contents(await chat.history(session, after=first["messages"][0]["id"])) == [1, 2]


async def test_limits_that_are_taken(chat: Chat) -> None:
    session = await fill(chat, 150)
    assert contents(await chat.history(session)) == list(range(50, 150))
    assert contents(await chat.history(session, limit=1)) == [149]
    assert contents(await chat.history(session, limit=1000)) == list(range(150))


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "abc", "1.5", "", "9" * 30, "1e2", "٣", "\x00"])
async def test_limits_that_are_refused(chat: Chat, limit: str) -> None:
    session = await fill(chat, 1)
    for path in (f"/agent/chat/history/{session}", "/agent/sessions"):
        problem = await chat.call("GET", path, 400, params={"limit": limit})
        assert problem["code"] == "invalid_request"
        assert list(problem["errors"]) == ["limit"]


@pytest.mark.parametrize("name", ["before", "after"])
@pytest.mark.parametrize("cursor", ["", "nonsense", "msg-" + "0" * 32, "\x00", "9" * 3000])
async def test_cursors_that_are_not_in_the_session(chat: Chat, name: str, cursor: str) -> None:
    session = await fill(chat, 1)
    problem = await chat.history(session, status=400, **{name: cursor})
    assert list(problem["errors"]) == [name]


async def test_a_cursor_of_another_session_and_both_cursors(chat: Chat) -> None:
    session, other = await fill(chat, 2), await fill(chat, 2)
    cursor = (await chat.history(other))["messages"][0]["id"]
    await chat.history(session, status=400, before=cursor)
    await chat.history(other, status=400, before=cursor, after=cursor)


async def test_sessions_are_created_listed_renamed_and_deleted(chat: Chat) -> None:
    made = await chat.session(title="One \x00")
    assert made.keys() == {
        *("session_id", "character_id", "title", "status", "message_count", "created_at", "updated_at")
    }
    assert (made["title"], made["status"], made["message_count"]) == ("One \ufffd", "idle", 0)
    path = f"/agent/session/{made['session_id']}"
    assert await chat.call("GET", path) == made
    renamed = await chat.call("PATCH", path, json={"title": "Two"})
    assert renamed == made | {"title": "Two"}
    assert (await chat.call("PATCH", path, json={"title": None}))["title"] is None
    await chat.call("DELETE", path, 204)
    for method, options in (("GET", {}), ("PATCH", {"json": {"title": "x"}}), ("DELETE", {})):
        assert (await chat.call(method, path, 404, **options))["code"] == "not_found"


async def test_sessions_come_latest_activity_first_in_pages(chat: Chat) -> None:
    made = [(await chat.session())["session_id"] for _ in range(7)]
    await chat.post("hi", made[2])
    expected = [made[2], *reversed(made[3:]), made[1], made[0]]
    listed, cursor = [], None
    while True:
        query = {"limit": "3"} | ({"before": cursor} if cursor else {})
        page = await chat.call("GET", "/agent/sessions", params=query)
        listed += [session["session_id"] for session in page["sessions"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert listed == expected


@pytest.mark.parametrize("cursor", ["x", "1.sess-0", "9" * 18 + ".sess-" + "0" * 32, ".", "\x00"])
async def test_cursors_of_sessions_that_are_refused(chat: Chat, cursor: str) -> None:
    problem = await chat.call("GET", "/agent/sessions", 400, params={"before": cursor})
    assert list(problem["errors"]) == ["before"]


@pytest.mark.parametrize(("time", "count"), [("0", 0), ("9" * 17, 1)])
async def test_a_cursor_of_sessions_is_a_place_and_need_be_no_session(chat: Chat, time: str, count: int) -> None:
    await chat.session()
    page = await chat.call("GET", "/agent/sessions", params={"before": f"{time}.sess-{'0' * 32}"})
    assert len(page["sessions"]) == count


async def test_times_are_rfc_3339_in_utc(chat: Chat) -> None:
    session = await chat.session()
    for name in ("created_at", "updated_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", session[name])


async def test_the_window_sent_upstream_is_cut_in_coarse_steps(start: Any, model: ModelServer) -> None:
    chat = await start(context_tokens=1000)
    session = None
    for number in range(60):
        answer = await chat.post(f"{number:03} " + "word " * 20, session)
        session = answer["session_id"]

    windows = [request.messages for request in model.requests]
    assert all(window[0][0] == "user" for window in windows)
    assert all(len("".join(text for _, text in window)) < 4000 for window in windows)
    firsts = [window[0][1][:3] for window in windows]
    assert len(set(firsts)) < 10
    assert firsts == sorted(firsts)
    assert [window[-1][1][:3] for window in windows] == [f"{number:03}" for number in range(60)]


async def test_a_long_session_is_cut_at_its_first_turn(start: Any, model: ModelServer) -> None:
    chat = await start(context_tokens=1000)
    session = await fill(chat, 10_000)
    await chat.post("hi", session)
    window = model.requests[0].messages
    assert 50 < len(window) < 250
    assert window[0][0] == "user"
    assert window[-2:] == [("assistant", "9999"), ("user", "hi")]
    await chat.post("again", session)
    assert model.requests[1].messages[0] == window[0]


async def test_a_message_over_the_budget_is_sent_alone(start: Any, model: ModelServer) -> None:
    chat = await start(context_tokens=1000)
    first = await chat.post("hi")
    await chat.post("w" * 10_000, first["session_id"])
    assert model.requests[1].messages == [("user", "w" * 10_000)]


async def test_a_session_keeps_its_character(chat: Chat) -> None:
    session = (await chat.session())["session_id"]
    page = await chat.call("GET", f"/agent/session/{session}")
    assert page["character_id"] == CHARACTER
