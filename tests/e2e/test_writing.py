"""Writing and sending messages, and what is kept of what is not sent."""

import pytest
from playwright.async_api import expect

from tests.chat_client import Chat
from tests.e2e.chat_page import ChatPage
from tests.e2e.conftest import OpenPage, url_of
from tests.e2e.scripts import Held
from tests.model_server import ModelServer


async def test_enter_sends_and_the_answer_comes(page: ChatPage, chat: Chat) -> None:
    await page.write("Say hello.")
    await expect(page.by("send")).to_be_enabled()
    await page.by("composer").press("Enter")
    await page.has_ended(2)
    await expect(page.body()).to_have_text("Hello, world.")
    await expect(page.body(page.messages("user"))).to_have_text("Say hello.")
    await expect(page.by("composer")).to_have_value("")
    history = await chat.history(page.session_id())
    assert [message["content"] for message in history["messages"]] == ["Say hello.", "Hello, world."]
    ids = await page.messages().evaluate_all("(items) => items.map((item) => item.dataset.messageId)")
    assert ids == [message["id"] for message in history["messages"]]


async def test_shift_and_enter_begins_a_line_and_ctrl_and_enter_sends(page: ChatPage, chat: Chat) -> None:
    composer = page.by("composer")
    await composer.press_sequentially("one")
    await composer.press("Shift+Enter")
    await composer.press_sequentially("two")
    await expect(composer).to_have_value("one\ntwo")
    await expect(page.messages()).to_have_count(0)
    await expect(page.by("send")).to_be_enabled()
    await composer.press("Control+Enter")
    await page.has_ended(2)
    assert (await chat.history(page.session_id()))["messages"][0]["content"] == "one\ntwo"


async def test_nothing_and_too_much_can_not_be_sent(page: ChatPage) -> None:
    await expect(page.by("send")).to_be_disabled()
    for text in (" \n ", "x" * 10_001):
        await page.write(text)
        await expect(page.by("send")).to_be_disabled()
        await page.by("composer").press("Enter")
    await expect(page.messages()).to_have_count(0)
    await page.write("\N{GRINNING FACE}" * 10_000)
    await expect(page.by("send")).to_be_enabled()


async def test_a_second_message_can_be_written_but_not_sent_meanwhile(page: ChatPage, model: ModelServer) -> None:
    held = Held("One", " two.")
    model.play([held])
    await page.send("first")
    await page.is_answering()
    await page.write("second")
    await page.by("composer").press("Enter")
    await expect(page.by("composer")).to_have_value("second")
    held.go_on.set()
    await page.has_ended(2)
    await page.by("composer").press("Enter")
    await page.has_ended(4)


async def test_drafts_belong_to_their_sessions_and_outlive_a_reload(page: ChatPage) -> None:
    await page.ask("first")
    first = page.session_id()
    await page.write("a draft for the first")
    await page.start_new()
    await expect(page.by("composer")).to_have_value("")
    await page.write("a draft for a new one")
    await page.open_session("first")
    await expect(page.by("composer")).to_have_value("a draft for the first")
    await page.reload()
    assert page.session_id() == first
    await expect(page.by("composer")).to_have_value("a draft for the first")
    await page.start_new()
    await expect(page.by("composer")).to_have_value("a draft for a new one")
    await page.ask("second")
    await page.start_new()
    await expect(page.by("composer")).to_have_value("")


@pytest.mark.parametrize("reload", [False, True])
async def test_a_draft_outlives_what_another_tab_sends(page: ChatPage, new_page: OpenPage, reload: bool) -> None:
    """Both are in a new session, of which the browser keeps one draft."""
    other = await new_page(page.url, beside=page)
    await other.open()
    await page.write("essay")
    await other.ask("hi")
    if reload:
        await page.reload()
    else:
        await page.evaluate(f"location.hash = '{other.session_id()}'")
        await page.has_ended(2)
        await page.start_new()
    await expect(page.by("composer")).to_have_value("essay")


async def test_drafts_of_two_tabs_are_both_kept(page: ChatPage, new_page: OpenPage) -> None:
    other = await new_page(page.url, beside=page)
    await other.open()
    await page.write("essay")
    await other.write("hi")
    await page.write("an essay")
    await other.write("hi there")
    await page.reload()
    await expect(page.by("composer")).to_have_value("an essay\n\nhi there")
    await other.ask("hi there")
    await page.reload()
    await expect(page.by("composer")).to_have_value("an essay")


async def test_what_another_tab_sends_does_not_come_back(page: ChatPage, new_page: OpenPage) -> None:
    await page.write("hi")
    other = await new_page(page.url, beside=page)
    await other.open()
    await expect(other.by("composer")).to_have_value("hi")
    await page.by("send").click()
    await page.has_ended(2)
    await other.reload()
    await expect(other.by("composer")).to_have_value("")


async def test_an_idle_page_and_one_beside_it(page: ChatPage, new_page: OpenPage, chat: Chat) -> None:
    await page.ask("first")
    other = await new_page(url_of(chat), beside=page)
    await other.open(page.session_id())
    await expect(other.messages()).to_have_count(2)
    await page.ask("second")
    await other.has_ended(4)
    await expect(other.body()).to_have_text("Hello, world.")


async def test_two_pages_show_the_same_answer_as_it_comes(
    page: ChatPage, new_page: OpenPage, chat: Chat, model: ModelServer
) -> None:
    held = Held("The first half, ", "and the second.")
    await page.ask("hello")
    model.play([held])
    await page.send("go on")
    await page.is_answering()
    other = await new_page(url_of(chat), beside=page)
    await other.open(page.session_id())
    for one in (page, other):
        await one.is_answering()
        await expect(one.body()).to_contain_text("The first half,")
        await expect(one.by("stop")).to_be_visible()
    held.go_on.set()
    for one in (page, other):
        await one.has_ended(4)
        await expect(one.body()).to_have_text("The first half, and the second.")


async def test_a_page_that_was_idle_shows_the_answer_as_it_comes(
    page: ChatPage, new_page: OpenPage, chat: Chat, model: ModelServer
) -> None:
    await page.ask("hello")
    other = await new_page(url_of(chat), beside=page)
    await other.open(page.session_id())
    await expect(other.messages()).to_have_count(2)
    held = Held("The first half, ", "and the second.")
    model.play([held])
    await page.send("go on")
    await expect(other.body()).to_contain_text("The first half,")
    await other.stop()
    for one in (page, other):
        await expect(one.answer()).to_have_attribute("data-status", "stopped")
