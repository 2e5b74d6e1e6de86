"""Messages between the field and chatd: none is lost, none is there twice, none goes to another session."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Route, expect

from tests.chat_client import Chat
from tests.conftest import Start
from tests.e2e.chat_page import ChatPage
from tests.e2e.conftest import OpenPage, Watch, url_of
from tests.e2e.scripts import Held
from tests.model_server import ModelServer, says
from tests.token_provider import SECRET, token

POST = "**/agent/chat/stream"
HISTORY = "**/agent/chat/history/**"

Answer = Callable[[Route], Awaitable[None]]


async def refuse(route: Route) -> None:
    await route.abort()


def problem(status: int, **fields: Any) -> dict[str, Any]:
    return {"status": status, "content_type": "application/problem+json", "body": json.dumps(fields)}


class Hold:
    """Holds requests up until they may go on."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, route: Route) -> None:
        await self.go_on.wait()
        await route.continue_()


async def answer_wrongly(route: Route) -> None:
    """Let a request through, and a broken proxy's answer back."""
    await route.fetch()
    await route.fulfill(**problem(500, code="internal", detail="Somewhere between, something broke."))


async def know_nothing(route: Route) -> None:
    """Let a request through, and back the answer of a proxy that knows of no chatd any more."""
    await route.fetch()
    await route.fulfill(status=404, content_type="text/plain", body="404 page not found")


async def captive_portal(route: Route) -> None:
    await route.fulfill(status=200, content_type="text/html", body="<p>sign in to this network")


async def questions(chat: Chat, session_id: str) -> list[str]:
    messages = (await chat.history(session_id))["messages"]
    return [message["content"] for message in messages if message["role"] == "user"]


async def session_in(page: ChatPage, chat: Chat) -> str:
    """Open a session of its own."""
    session_id = (await chat.session(title="Here"))["session_id"]
    await page.open(session_id)
    await expect(page.by("session-title")).to_have_text("Here")
    return str(session_id)


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


async def test_an_answer_that_could_not_be_read_on_is_completed(
    page: ChatPage, chat: Chat, model: ModelServer, watch: Watch
) -> None:
    watch.expect("Failed to load resource")
    await session_in(page, chat)
    held = Held("The first part", ", and the rest.")
    model.play([held])

    await page.send("go")
    await page.has_written(14)
    await page.page.route("**/agent/chat/stream/sess-*", captive_portal)
    await page.context.set_offline(True)
    await page.context.set_offline(False)
    await expect(page.answer().get_by_test_id("error-notice")).to_be_visible()
    held.go_on.set()
    await page.page.unroute("**/agent/chat/stream/sess-*")
    await page.has_ended(2)
    await expect(page.body()).to_have_text("The first part, and the rest.")
    await expect(page.answer().get_by_test_id("error-notice")).to_be_hidden()


async def test_one_that_arrived_is_told_where_its_answer_can_not_be_read(
    page: ChatPage, chat: Chat, watch: Watch
) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)
    broken = problem(500, code="internal", detail="Something broke.")
    await page.page.route(HISTORY, lambda route: route.fulfill(**broken))
    await page.send("go")
    await expect(page.page.locator("[data-part=problem]")).to_have_text("Something broke.")
    await expect(page.messages()).to_have_count(0)
    await page.page.unroute(HISTORY)
    await page.has_ended(2)
    assert await questions(chat, session_id) == ["go"]


async def test_a_turn_of_elsewhere_that_can_not_be_read_is_told(page: ChatPage, chat: Chat, model: ModelServer) -> None:
    session_id = await session_in(page, chat)
    await page.page.route("**/agent/chat/stream/sess-*", captive_portal)
    held = Held("One", " two.")
    model.play([held])
    body = chat.body("from elsewhere", session_id)
    await chat.call("POST", "/agent/chat", 202, json=body, headers={"Prefer": "respond-async"})
    await expect(page.page.locator("[data-part=problem]")).to_have_text("This is no stream of chatd.")
    await page.page.unroute("**/agent/chat/stream/sess-*")
    held.go_on.set()
    await page.has_ended(2)
    await expect(page.body()).to_have_text("One two.")


async def test_a_page_that_comes_late_does_not_complete_what_is_being_read(
    page: ChatPage, chat: Chat, model: ModelServer
) -> None:
    """A look at the history from before a message was sent may bring its answer before the stream does."""
    session_id = await session_in(page, chat)
    late, rest, looking = Hold(), Hold(), asyncio.Event()

    async def hold_first(route: Route) -> None:
        is_first = not looking.is_set()
        looking.set()
        await (late(route) if is_first else route.continue_())

    async def give_half(route: Route) -> None:
        response = await route.fetch()
        start, half, *_ = (await response.text()).split("\n\n")
        await route.fulfill(response=response, body=f"{start}\n\n{half}\n\n")

    await page.page.route(HISTORY, hold_first)
    await chat.post("from elsewhere", session_id)
    await asyncio.wait_for(looking.wait(), 10)
    await page.page.route(POST, give_half)
    await page.page.route("**/agent/chat/stream/sess-*", rest)
    model.play([says("One", " two.", delay=0.3)])
    await page.send("from here")
    await expect(page.body()).to_have_text("One")
    async with page.page.expect_response(HISTORY):
        late.go_on.set()
    await asyncio.sleep(0.5)
    rest.go_on.set()
    await page.has_ended(4)
    await expect(page.body()).to_have_text("One two.")


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


async def test_a_stop_that_comes_late_stops_no_other_turn(
    page: ChatPage, chat: Chat, model: ModelServer, watch: Watch
) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)
    first, second = Held("One", " two."), Held("Three", " four.")
    model.play([first, second])
    await page.page.route("**/agent/chat/stop/**", refuse)
    await page.send("first")
    await page.is_answering()
    await page.stop()
    first.go_on.set()
    await page.has_ended(2)
    await page.send("second")
    await page.page.unroute("**/agent/chat/stop/**")
    await asyncio.sleep(4)  # in which the stop of before would have come
    second.go_on.set()
    await page.has_ended(4)
    assert (await chat.history(session_id))["messages"][-1]["content"] == "Three four."


async def test_a_turn_of_elsewhere_is_stopped_before_it_is_reached(
    page: ChatPage, chat: Chat, model: ModelServer, watch: Watch
) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)
    await page.page.route("**/agent/chat/stream/sess-*", refuse)
    held = Held("One", " two.")
    model.play([held])
    body = chat.body("from elsewhere", session_id)
    await chat.call("POST", "/agent/chat", 202, json=body, headers={"Prefer": "respond-async"})
    await page.has_state("reconnecting")
    async with page.page.expect_response("**/agent/chat/stop/**"):
        await page.stop()
    await page.page.unroute("**/agent/chat/stream/sess-*")
    await page.has_ended(2)
    await expect(page.answer()).to_have_attribute("data-status", "stopped")


async def test_those_of_elsewhere_are_seen_before_ones_own(page: ChatPage, chat: Chat) -> None:
    session_id = await session_in(page, chat)
    await chat.post("from elsewhere", session_id)
    await page.send("from here")
    await page.has_ended(4)
    shown = await page.messages("user").locator(".message-body").all_text_contents()
    assert shown == ["from elsewhere", "from here"]
