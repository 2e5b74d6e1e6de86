"""What goes wrong, and how the page tells it and goes on."""

import asyncio
import re
import signal
import socket
from pathlib import Path

from playwright.async_api import expect

from tests.chat_client import Chat
from tests.conftest import Start
from tests.e2e.chat_page import ChatPage, session_in
from tests.e2e.conftest import OpenPage, Watch, url_of
from tests.e2e.routes import Late
from tests.e2e.scripts import Held, cut, paced, prose, resumed
from tests.model_server import Exchange, ModelServer, fails, says
from tests.server_process import ServerProcess, serving

UNREACHABLE = "ERR_|status of 50[234]"
# As where one has blocked cookies and data of sites.
KEEPS_NOTHING = """for (const name of ["localStorage", "sessionStorage"])
    Object.defineProperty(window, name, { get() { throw new DOMException("", "SecurityError"); } });
window.BroadcastChannel = class { constructor() { throw new DOMException("", "SecurityError"); } };"""


async def test_another_attempt_is_told(start: Start, new_page: OpenPage, model: ModelServer) -> None:
    async def breaks(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("The tide ")
        exchange.reset()

    model.play([breaks, fails(529, "overloaded_error"), says("comes in.")])
    chat = await start(retry_factor=1.0)
    page = await new_page(url_of(chat))
    await page.open()
    await page.send("What does the tide do?")
    notice = page.answer().get_by_test_id("retry-notice")
    await expect(notice).to_have_text(re.compile(r"attempt 2 of 3, waiting [12] s", re.IGNORECASE))
    await expect(page.body()).to_have_text("The tide")
    await expect(notice).to_have_text(re.compile(r"attempt 3 of 3, waiting [34] s", re.IGNORECASE))
    await expect(notice).to_have_text(re.compile(r"waiting 1 s"))
    await page.has_ended(2)
    await expect(notice).to_be_hidden()
    await expect(page.body()).to_have_text("The tide comes in.")


async def test_a_failure_is_told_and_tried_again(page: ChatPage, chat: Chat, model: ModelServer) -> None:
    model.play([fails(400, "invalid_request_error")])
    await page.send("hello")
    await expect(page.visible("error-notice")).to_have_count(1)
    await page.visible("try-again").click()
    await expect(page.body()).to_have_text("Hello, world.")
    await expect(page.visible("error-notice")).to_have_count(0)
    await expect(page.answer()).to_have_attribute("data-status", "complete")
    assert (await chat.history(page.session_id()))["messages"][-1]["content"] == "Hello, world."


async def test_a_failure_is_told_no_longer_where_another_page_tries_again(
    page: ChatPage, new_page: OpenPage, model: ModelServer
) -> None:
    model.play([fails(400, "invalid_request_error")])
    await page.send("hello")
    await expect(page.visible("error-notice")).to_have_count(1)
    other = await new_page(page.url, beside=page)
    await other.open(page.session_id())
    await expect(other.visible("error-notice")).to_have_count(1)
    await page.visible("try-again").click()
    await other.has_ended(3)
    await expect(other.visible("error-notice")).to_have_count(0)


async def test_a_failure_is_told_after_a_reload_too(page: ChatPage, model: ModelServer) -> None:
    async def breaks(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("Half")
        exchange.reset()

    model.play([breaks, fails(401), says("Whole.")])
    await page.send("hello")
    await expect(page.answer()).to_have_attribute("data-status", "interrupted")
    await page.reload()
    await expect(page.body()).to_have_text("Half")
    await expect(page.answer()).to_have_attribute("data-status", "interrupted")
    await page.visible("try-again").click()
    await expect(page.body()).to_have_text("Whole.")


async def test_offline_and_back_in_the_middle_of_an_answer(page: ChatPage, model: ModelServer, watch: Watch) -> None:
    watch.expect(UNREACHABLE)
    text = prose(3000)
    model.play([paced(cut(text, 10), rate=60)])
    await page.send("A long story.")
    await expect(page.body()).to_contain_text("The")
    await page.context.set_offline(True)
    await page.has_state("offline")
    await page.page.wait_for_timeout(1500)
    await page.context.set_offline(False)
    await page.has_state("online")
    await page.has_ended(2)
    assert await page.source() == text


async def test_offline_while_idle(page: ChatPage, watch: Watch) -> None:
    watch.expect(UNREACHABLE)
    await page.ask("hello")
    await page.context.set_offline(True)
    await page.has_state("offline")
    await page.context.set_offline(False)
    await page.has_state("online")
    await page.ask("hello again")


async def test_a_message_that_was_sent_offline_is_sent_once(page: ChatPage, chat: Chat, watch: Watch) -> None:
    watch.expect(UNREACHABLE)
    await page.ask("hello")
    await page.context.set_offline(True)
    await page.has_state("offline")
    await page.send("can you hear me?")
    await page.page.wait_for_timeout(1000)
    await page.context.set_offline(False)
    await page.has_ended(4)
    history = await chat.history(page.session_id())
    assert [message["content"] for message in history["messages"]][2:] == ["can you hear me?", "Hello, world."]


async def test_killed_and_started_again_in_the_middle_of_an_answer(
    new_page: OpenPage, model: ModelServer, tmp_path: Path, watch: Watch
) -> None:
    watch.expect(UNREACHABLE)
    text = prose(4000)
    model.default = resumed(text, rate=60)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as passed:
        url = f"http://127.0.0.1:{passed.getsockname()[1]}/"
        server = ServerProcess(passed, CHATD_DATA_DIR=str(tmp_path / "data"), ANTHROPIC_BASE_URL=model.url)
        async with serving(server):
            page = await new_page(url)
            await page.open()
            await page.send("A long story.")
            await page.has_written(500)
            await server.end(signal.SIGKILL)
            await page.has_state("reconnecting")
        async with serving(server) as chat:
            await page.has_ended(2, timeout=60)
            await page.has_state("online")
            assert await page.source() == text
            assert (await chat.history(page.session_id()))["messages"][-1]["content"] == text
            await page.reload()
            assert await page.source() == text


async def test_a_deploy_in_the_middle_of_an_answer(
    new_page: OpenPage, model: ModelServer, tmp_path: Path, watch: Watch
) -> None:
    watch.expect(UNREACHABLE)
    text = prose(3000)
    model.default = resumed(text, rate=60)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as passed:
        url = f"http://127.0.0.1:{passed.getsockname()[1]}/"
        environment = {"CHATD_DATA_DIR": str(tmp_path / "data"), "CHATD_DRAIN_TIMEOUT": "0.5"}
        server = ServerProcess(passed, ANTHROPIC_BASE_URL=model.url, **environment)
        async with serving(server):
            page = await new_page(url)
            await page.open()
            await page.send("A long story.")
            await expect(page.body()).to_contain_text("The")
            assert await server.end(signal.SIGTERM) == 0
        async with serving(server):
            await page.has_ended(2, timeout=60)
            assert await page.source() == text


async def test_a_proxy_that_knows_of_no_chatd(page: ChatPage, watch: Watch) -> None:
    watch.expect("status of 404")
    async with page.page.expect_response(lambda response: response.request.method == "PATCH"):
        await page.ask("hello")
    session = page.session_id()
    problem = page.page.locator("[data-part=problem]")
    await page.page.route("**/agent/session/*", lambda route: route.fulfill(status=404, body="404 page not found"))
    await expect(problem).to_have_text("The server answered 404.")  # it has looked whether something happened elsewhere
    await expect(page.messages()).to_have_count(2)
    await page.delete("hello")
    await expect(page.sessions()).to_have_count(0)
    await expect(page.by("toast")).to_be_hidden(timeout=15_000)
    await expect(page.sessions()).to_have_count(1)
    await page.page.unroute("**/agent/session/*")
    await page.open(session)
    await expect(page.messages()).to_have_count(2)


async def test_what_could_not_be_sent_is_not_lost(page: ChatPage, chat: Chat, model: ModelServer, watch: Watch) -> None:
    watch.expect("status of 409")
    session_id = await session_in(page, chat)
    late, held = Late(), Held("Half ", "whole.")
    await page.page.route("**/agent/session/*", late)
    await asyncio.wait_for(late.has_read.wait(), 20)  # it looks no more what happens elsewhere
    model.play([held])
    body = chat.body("from elsewhere", session_id)
    await chat.call("POST", "/agent/chat", 202, json=body, headers={"Prefer": "respond-async"})
    await page.send("at the same time")
    await expect(page.by("composer")).to_have_value("at the same time")
    await expect(page.page.get_by_role("alert").locator("visible=true")).to_be_visible()
    held.go_on.set()
    late.go_on.set()
    await page.has_ended(2)
    await expect(page.by("composer")).to_have_value("at the same time")
    await page.by("send").click()
    await page.has_ended(4)


async def test_a_browser_that_keeps_nothing(new_page: OpenPage, chat: Chat) -> None:
    page = await new_page(url_of(chat))
    await page.page.add_init_script(KEEPS_NOTHING)
    await page.open()
    await page.ask("hello")
    await expect(page.session("hello")).to_be_visible()
