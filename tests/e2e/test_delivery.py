"""Messages between the field and chatd: none is lost, none is there twice, none goes to another session."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Route, expect

from tests.chat_client import Chat
from tests.conftest import Start
from tests.e2e.chat_page import ChatPage, questions, session_in
from tests.e2e.conftest import OpenPage, Watch, url_of
from tests.e2e.routes import HISTORY, POST, Hold, answer_wrongly, know_nothing, problem, refuse
from tests.e2e.scripts import Held
from tests.model_server import ModelServer
from tests.token_provider import SECRET, token

Answer = Callable[[Route], Awaitable[None]]


async def draft_is(page: ChatPage, text: str) -> None:
    await expect(page.by("composer")).to_have_value(text)


async def test_one_that_arrives_while_another_session_is_open(page: ChatPage, chat: Chat) -> None:
    here = await session_in(page, chat)
    there = (await chat.session(title="There"))["session_id"]
    held = Hold()
    await page.page.route(POST, held)
    await page.send("once")
    await page.evaluate(f"location.hash = '{there}'")
    await expect(page.by("session-title")).to_have_text("There")
    await expect(page.messages()).to_have_count(0)
    held.go_on.set()
    await page.evaluate(f"location.hash = '{here}'")
    await page.has_ended(2)
    await draft_is(page, "")
    assert await questions(chat, here) == ["once"]
    assert await questions(chat, there) == []


async def test_one_on_its_way_is_there_when_its_session_is_opened_again(
    page: ChatPage, chat: Chat, watch: Watch
) -> None:
    watch.expect("Failed to load resource")
    here = await session_in(page, chat)
    there = (await chat.session(title="There"))["session_id"]
    await page.page.route(POST, refuse)
    await page.send("once")
    await page.evaluate(f"location.hash = '{there}'")
    await expect(page.by("session-title")).to_have_text("There")
    await page.evaluate(f"location.hash = '{here}'")
    await expect(page.body(page.messages("user"))).to_have_text("once")
    await expect(page.by("stop")).to_be_visible()
    await page.page.unroute(POST)
    await page.has_ended(2)
    assert await questions(chat, here) == ["once"]


async def test_none_can_be_sent_before_its_session_is_there(page: ChatPage, chat: Chat) -> None:
    session_id = (await chat.session(title="Here"))["session_id"]
    held = Hold()
    await page.page.route(HISTORY, held)
    await page.open(session_id)
    await page.reload()
    await page.write("into this one")
    await page.by("composer").press("Enter")
    await expect(page.by("send")).to_be_disabled()
    held.go_on.set()
    await expect(page.by("send")).to_be_enabled()
    await page.by("composer").press("Enter")
    await page.has_ended(2)
    assert page.session_id() == session_id
    assert await questions(chat, session_id) == ["into this one"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [(answer_wrongly, "Somewhere between, something broke."), (know_nothing, "The server answered 404.")],
)
async def test_one_that_failed_in_doubt_is_sent_again_as_the_same(
    page: ChatPage, chat: Chat, watch: Watch, answer: Answer, told: str
) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)

    await page.page.route(POST, answer)
    await page.send("pay once")
    await expect(page.page.locator("[data-part=problem]")).to_have_text(told)
    await page.page.unroute(POST)
    await draft_is(page, "pay once")
    await page.by("composer").press("Enter")
    await page.has_ended(2)
    assert await questions(chat, session_id) == ["pay once"]


async def test_one_that_failed_in_doubt_is_the_same_after_typing(page: ChatPage, chat: Chat, watch: Watch) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)
    await page.page.route(POST, answer_wrongly)
    await page.send("pay once")
    await draft_is(page, "pay once")
    await page.page.unroute(POST)
    await page.by("composer").press_sequentially("!")
    await page.by("composer").press("Backspace")
    await page.by("composer").press("Enter")
    await page.has_ended(2)
    await page.ask("pay once")  # once more, on purpose
    assert await questions(chat, session_id) == ["pay once", "pay once"]


async def test_one_on_its_way_outlives_typing_and_a_reload(page: ChatPage, chat: Chat, watch: Watch) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)
    await page.page.route(POST, refuse)
    await page.send("sent while away")
    await page.by("composer").press_sequentially("next")
    await page.page.unroute(POST)
    await page.reload()
    await page.has_ended(2)
    await draft_is(page, "next")
    assert await questions(chat, session_id) == ["sent while away"]


async def test_one_that_was_refused_goes_before_what_is_being_written(page: ChatPage, chat: Chat, watch: Watch) -> None:
    watch.expect("Failed to load resource")
    await session_in(page, chat)
    go_on = asyncio.Event()

    async def refuse_later(route: Route) -> None:
        await go_on.wait()
        await route.fulfill(**problem(409, code="turn_in_progress", detail="A turn is running."))

    await page.page.route(POST, refuse_later)
    await page.send("one")
    await page.by("composer").press_sequentially("two")
    go_on.set()
    await draft_is(page, "one\n\ntwo")
    await page.reload()
    await draft_is(page, "one\n\ntwo")
    await expect(page.messages()).to_have_count(0)


async def test_one_that_does_not_get_through_can_be_called_back(page: ChatPage, chat: Chat, watch: Watch) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)
    await page.page.route(POST, refuse)
    await page.send("buy ten")
    await page.has_state("reconnecting")
    await page.stop()
    await draft_is(page, "buy ten")
    await expect(page.messages()).to_have_count(0)
    await page.write("")
    await page.page.unroute(POST)
    await page.reload()
    await expect(page.by("session-title")).to_have_text("Here")
    async with page.page.expect_response("**/agent/session/*"):
        pass  # a look at what happens elsewhere: by now it would have been sent again
    assert await questions(chat, session_id) == []
    await expect(page.messages()).to_have_count(0)


async def test_one_that_is_called_back_is_sent_by_no_other_tab(
    page: ChatPage, new_page: OpenPage, chat: Chat, watch: Watch
) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)
    await page.context.route(POST, refuse)
    await page.send("buy ten")
    await page.has_state("reconnecting")
    other = await new_page(page.url, beside=page)
    await other.open(session_id)
    await expect(other.body(other.messages())).to_have_text("buy ten")
    await page.stop()
    await draft_is(page, "buy ten")
    await expect(other.messages()).to_have_count(0)
    await draft_is(other, "")
    await page.context.unroute(POST)
    await page.ask("buy two")  # in its place
    await other.has_ended(2)
    assert await questions(chat, session_id) == ["buy two"]


async def test_one_for_a_session_that_is_gone_is_kept(page: ChatPage, chat: Chat, watch: Watch) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)
    await chat.call("DELETE", f"/agent/session/{session_id}", 204)
    await page.send("precious")
    await expect(page.by("session-title")).to_have_text("New conversation")
    await draft_is(page, "precious")
    assert page.session_id() == ""
    await page.by("composer").press("Enter")
    await page.has_ended(2)


async def test_one_whose_session_was_made_and_deleted(page: ChatPage, chat: Chat, watch: Watch) -> None:
    watch.expect("Failed to load resource")

    await page.page.route(POST, answer_wrongly)
    await page.send("once more")
    await draft_is(page, "once more")
    await page.page.unroute(POST)
    (made,) = (await chat.call("GET", "/agent/sessions"))["sessions"]
    await chat.call("DELETE", f"/agent/session/{made['session_id']}", 204)
    await page.by("composer").press("Enter")
    await draft_is(page, "once more")
    await expect(page.by("send")).to_be_visible()
    await page.by("composer").press("Enter")
    await page.has_ended(2)
    assert await questions(chat, page.session_id()) == ["once more"]


async def test_what_is_typed_before_the_page_is_ready_stays(page: ChatPage) -> None:
    held = Hold()
    await page.page.route("**/agent/me", held)
    await page.reload()
    await page.by("composer").press_sequentially("early")
    await page.by("composer").press("Enter")
    held.go_on.set()
    await expect(page.by("send")).to_be_enabled()
    await draft_is(page, "early")
    await expect(page.messages()).to_have_count(0)


async def test_what_is_written_meanwhile_goes_along_to_the_new_session(page: ChatPage, model: ModelServer) -> None:
    held = Held("One", " two.")
    model.play([held])
    await page.send("first")
    await page.by("composer").press_sequentially("follow-up")
    await page.is_answering()
    held.go_on.set()
    await page.has_ended(2)
    await page.reload()
    await draft_is(page, "follow-up")
    await page.start_new()
    await draft_is(page, "")


async def test_a_session_that_could_not_be_loaded_is_tried_again(page: ChatPage, chat: Chat, watch: Watch) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)
    broken = True

    async def break_once(route: Route) -> None:
        nonlocal broken
        await (
            route.fulfill(**problem(500, code="internal", detail="Something broke.")) if broken else route.continue_()
        )
        broken = False

    await page.page.route(HISTORY, break_once)
    await page.reload()
    await expect(page.by("session-title")).to_have_text("Here")
    await page.ask("into this one")
    assert await questions(chat, session_id) == ["into this one"]


async def test_none_is_sent_by_somebody_else(start: Start, new_page: OpenPage, watch: Watch) -> None:
    watch.expect("Failed to load resource")
    chat = await start(auth="jwt", jwt_secret=SECRET)
    page = await new_page(url_of(chat))
    await page.open()
    await page.sign_in(token("alice", exp=time.time() + 4))
    await expect(page.by("send")).to_be_visible()
    tokens: list[str] = []

    async def note(route: Route) -> None:
        tokens.append(route.request.headers["authorization"])
        await route.abort()

    await page.page.route(POST, note)
    await page.send("of Alice's")
    await expect(page.by("sign-in")).to_be_visible(timeout=15_000)
    alice = set(tokens)
    await page.sign_in(token("bob"))
    await expect(page.by("sign-in")).to_be_hidden()
    await asyncio.sleep(3)  # in which Alice's page would have sent it again
    assert set(tokens) == alice
    assert len(alice) == 1
    await expect(page.messages()).to_have_count(0)
    await draft_is(page, "")


async def test_two_tabs_keep_each_their_own(page: ChatPage, new_page: OpenPage, chat: Chat, watch: Watch) -> None:
    watch.expect("Failed to load resource")
    other = await new_page(page.url, beside=page)
    await other.open()
    await page.context.route(POST, refuse)
    await page.send("of one tab")
    await other.send("of the other")
    for tab in (page, other):
        await expect(tab.by("stop")).to_be_visible()
        await tab.page.goto("about:blank")
    await page.context.unroute(POST)
    await page.open()
    await page.has_ended(2)
    await page.start_new()
    await page.has_ended(2)
    sessions = (await chat.call("GET", "/agent/sessions"))["sessions"]
    asked = [await questions(chat, session["session_id"]) for session in sessions]
    assert sorted(asked) == [["of one tab"], ["of the other"]]


async def test_those_of_elsewhere_are_seen_before_ones_own(page: ChatPage, chat: Chat) -> None:
    session_id = await session_in(page, chat)
    await chat.post("from elsewhere", session_id)
    await page.send("from here")
    await page.has_ended(4)
    shown = await page.messages("user").locator(".message-body").all_text_contents()
    assert shown == ["from elsewhere", "from here"]


async def test_those_of_elsewhere_are_seen_after_a_failure_too(page: ChatPage, chat: Chat, watch: Watch) -> None:
    watch.expect("status of 503")
    session_id = await session_in(page, chat)
    await chat.post("from elsewhere", session_id)
    away = problem(503, code="unavailable")
    await page.page.route(HISTORY, lambda route: route.fulfill(**away), times=1)
    await page.send("from here")
    await page.has_ended(4)
    shown = await page.messages("user").locator(".message-body").all_text_contents()
    assert shown == ["from elsewhere", "from here"]
