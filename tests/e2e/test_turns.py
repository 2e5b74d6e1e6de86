"""Turns as the page reads them: each to its end, and what keeps it from that is told."""

import asyncio

import pytest
from playwright.async_api import Route, expect

from tests.chat_client import Chat
from tests.e2e.chat_page import ChatPage, questions, session_in
from tests.e2e.conftest import Watch
from tests.e2e.routes import ATTACH, HISTORY, POST, STOP, Hold, Late, captive_portal, problem, refuse
from tests.e2e.scripts import Held
from tests.model_server import Exchange, ModelServer, fails, says


async def visit_another(page: ChatPage, chat: Chat) -> None:
    """Open another session, whatever happens in this one."""
    other = (await chat.session(title="There"))["session_id"]
    await page.evaluate(f"location.hash = '{other}'")
    await expect(page.by("session-title")).to_have_text("There")


async def has_ended_with(chat: Chat, session_id: str, status: str) -> None:
    """Wait until a session has this status after its first message."""
    async with asyncio.timeout(20):
        while not (history := await chat.history(session_id))["messages"] or history["status"] != status:
            await asyncio.sleep(0.05)


async def post_elsewhere(chat: Chat, session_id: str) -> None:
    """Begin a turn in a session, and do not wait for its end."""
    body = chat.body("from elsewhere", session_id)
    await chat.call("POST", "/agent/chat", 202, json=body, headers={"Prefer": "respond-async"})


async def test_an_answer_that_could_not_be_read_on_is_completed(
    page: ChatPage, chat: Chat, model: ModelServer, watch: Watch
) -> None:
    watch.expect("Failed to load resource")
    await session_in(page, chat)
    held = Held("The first part", ", and the rest.")
    model.play([held])

    await page.send("go")
    await page.has_written(14)
    await page.page.route(ATTACH, captive_portal)
    await page.context.set_offline(True)
    await page.context.set_offline(False)
    await expect(page.answer().get_by_test_id("error-notice")).to_be_visible()
    held.go_on.set()
    await page.page.unroute(ATTACH)
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
    await page.page.route(ATTACH, captive_portal)
    held = Held("One", " two.")
    model.play([held])
    await post_elsewhere(chat, session_id)
    await expect(page.page.locator("[data-part=problem]")).to_have_text("This is not a stream from chatd.")
    await page.page.unroute(ATTACH)
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
    await page.page.route(ATTACH, rest)
    model.play([says("One", " two.", delay=0.3)])
    await page.send("from here")
    await expect(page.body()).to_have_text("One")
    async with page.page.expect_response(HISTORY):
        late.go_on.set()
    await asyncio.sleep(0.5)
    rest.go_on.set()
    await page.has_ended(4)
    await expect(page.body()).to_have_text("One two.")


@pytest.mark.parametrize("is_left", [False, True])
async def test_a_stop_that_comes_late_stops_no_other_turn(
    page: ChatPage, chat: Chat, model: ModelServer, watch: Watch, is_left: bool
) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)
    first, second = Held("One", " two."), Held("Three", " four.")
    model.play([first, second])
    await page.page.route(STOP, refuse)
    await page.send("first")
    await page.is_answering()
    await page.stop()
    if is_left:
        await visit_another(page, chat)
    first.go_on.set()
    if is_left:
        await page.evaluate(f"location.hash = '{session_id}'")
    await page.has_ended(2)
    await page.send("second")
    await page.page.unroute(STOP)
    await asyncio.sleep(4)  # in which the stop of before would have come
    second.go_on.set()
    await page.has_ended(4)
    assert (await chat.history(session_id))["messages"][-1]["content"] == "Three four."


async def test_a_turn_of_elsewhere_is_stopped_before_it_is_reached(
    page: ChatPage, chat: Chat, model: ModelServer, watch: Watch
) -> None:
    watch.expect("Failed to load resource")
    session_id = await session_in(page, chat)
    await page.page.route(ATTACH, refuse)
    held = Held("One", " two.")
    model.play([held])
    await post_elsewhere(chat, session_id)
    await page.has_state("reconnecting")
    async with page.page.expect_response(STOP):
        await page.stop()
    await page.page.unroute(ATTACH)
    await page.has_ended(2)
    await expect(page.answer()).to_have_attribute("data-status", "stopped")


async def test_a_stop_is_not_forgotten_where_another_session_is_opened(
    page: ChatPage, chat: Chat, model: ModelServer
) -> None:
    here = await session_in(page, chat)
    held = Hold()
    await page.page.route(POST, held)
    model.play([Held("One", " two.")])
    await page.send("first")
    await page.stop()
    await visit_another(page, chat)
    held.go_on.set()
    await has_ended_with(chat, here, "idle")


async def test_a_stop_that_does_not_get_through_is_repeated_from_another_session(
    page: ChatPage, chat: Chat, model: ModelServer, watch: Watch
) -> None:
    watch.expect("Failed to load resource")
    here = await session_in(page, chat)
    await page.page.route(STOP, refuse)
    model.play([Held("One", " two.")])
    await page.send("first")
    await page.is_answering()
    await page.stop()
    await page.has_state("reconnecting")
    await visit_another(page, chat)
    await page.page.unroute(STOP)
    await has_ended_with(chat, here, "idle")


async def test_a_turn_of_elsewhere_that_fails_before_it_is_reached_is_told(
    page: ChatPage, chat: Chat, model: ModelServer
) -> None:
    session_id = await session_in(page, chat)
    held, go_on = Hold(), asyncio.Event()

    async def fail_later(exchange: Exchange) -> None:
        await go_on.wait()
        await exchange.fail(400, "invalid_request_error")

    await page.page.route(ATTACH, held)
    model.play([fail_later])
    await post_elsewhere(chat, session_id)
    await expect(page.by("stop")).to_be_visible()
    go_on.set()
    await has_ended_with(chat, session_id, "error")
    held.go_on.set()
    await expect(page.visible("error-notice")).to_have_count(1)


async def test_a_page_that_comes_late_does_not_tell_of_a_failure_that_is_over(
    page: ChatPage, chat: Chat, model: ModelServer
) -> None:
    session_id = await session_in(page, chat)
    late = Late()
    await page.page.route(HISTORY, late)
    model.play([fails(400, "invalid_request_error")])
    await chat.post("from elsewhere", session_id, 502)
    await asyncio.wait_for(late.has_read.wait(), 20)
    await page.send("from here")
    await page.has_ended(3)
    async with page.page.expect_response("**/agent/session/*"):
        late.go_on.set()  # only then it looks again
    await expect(page.visible("error-notice")).to_have_count(0)
