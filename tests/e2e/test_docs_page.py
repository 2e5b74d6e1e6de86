"""The page that shows the API, at /docs: all of it is there, and what one tries is really done."""

import json
import re
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Locator, Page, expect

from chatd.openapi.operations import OPERATIONS
from tests.chat_client import Chat
from tests.conftest import Start
from tests.e2e.conftest import OpenPage, Watch, url_of
from tests.e2e.scripts import Held
from tests.faults.nginx import nginx
from tests.model_server import ModelServer
from tests.token_provider import SECRET, bearer, token

QUESTION = json.dumps({"message": "Hello?", "character_id": 1})


async def open_docs(new_page: OpenPage, url: str, **options: object) -> Page:
    page = (await new_page(url, **options)).page
    await page.goto(f"{url}docs")
    await expect(page.locator("details.operation")).to_have_count(len(OPERATIONS))
    return page


async def operation(page: Page, name: str) -> Locator:
    """Open an operation and return what is shown of it."""
    shown = page.locator(f"#{name}")
    await shown.locator("summary").first.click()
    await expect(shown.get_by_role("form", name="Try it")).to_be_visible()
    return shown


async def send(shown: Locator) -> Locator:
    """Send the form and return the answer."""
    await shown.get_by_role("button", name="Send").click()
    return shown.get_by_test_id("answer")


async def test_all_is_shown(new_page: OpenPage, chat: Chat) -> None:
    page = await open_docs(new_page, url_of(chat))
    for (method, path), row in OPERATIONS.items():
        shown = page.locator("details.operation", has_text=f"{method} {re.sub(':[^}]+', '', path)}").filter(
            has_text=row.summary
        )
        await expect(shown).to_have_count(1)
        await shown.locator("summary").first.click()
        await expect(shown).to_contain_text(row.description.replace("`", ""))
    for summary in await page.locator("details.answer > summary").all():
        await summary.click()
    shown = page.locator("#post_stream")
    for event in ("start", "text", "retry", "reset", "done", "error"):
        await expect(shown.get_by_role("heading", name=event, exact=True)).to_be_visible()
    await expect(page.get_by_test_id("token")).to_be_hidden()


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, {"viewport": {"width": 320, "height": 640}}])
async def test_it_is_for_everyone(new_page: OpenPage, chat: Chat, options: dict[str, object]) -> None:
    page = await open_docs(new_page, url_of(chat), reduced_motion="reduce", **options)
    await operation(page, "post_chat")
    await page.locator("#post_chat details.answer summary").first.click()
    found = (await Axe().run(page)).response["violations"]
    assert [each["id"] for each in found if each["impact"] in {"serious", "critical"}] == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_a_turn_is_tried_by_keyboard(new_page: OpenPage, start: Start, model: ModelServer) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET)
    page = await open_docs(new_page, url_of(chat))
    await page.get_by_test_id("token").fill(token("alice"))
    await page.get_by_role("link", name="Post a message and stream the answer").focus()
    await page.keyboard.press("Enter")
    shown = page.locator("#post_stream")
    await expect(shown.locator("summary").first).to_be_focused()
    held = Held("The first half, ", "and the second.")
    model.play([held])
    await shown.get_by_label("Body").fill(QUESTION)
    await shown.get_by_role("button", name="Send").focus()
    await page.keyboard.press("Enter")
    answer = shown.get_by_test_id("answer")
    await expect(answer).to_contain_text("The first half,")  # as it comes
    held.go_on.set()
    await expect(answer).to_contain_text('"type":"done"')
    await expect(shown.get_by_role("button", name="Send")).to_be_focused()  # again: it was disabled meanwhile
    listed = await chat.call("GET", "/agent/sessions", headers=bearer(token("alice")))
    assert len(listed["sessions"]) == 1


async def test_the_end_of_a_request_leaves_the_focus(new_page: OpenPage, chat: Chat, model: ModelServer) -> None:
    page = await open_docs(new_page, url_of(chat))
    shown = await operation(page, "post_stream")
    held = Held("The first half, ", "and the second.")
    model.play([held])
    body = shown.get_by_label("Body")
    await body.fill(QUESTION)
    await expect(await send(shown)).to_contain_text("The first half,")
    await body.focus()
    held.go_on.set()
    await expect(shown.get_by_test_id("answer")).to_contain_text('"type":"done"')
    await expect(shown.get_by_role("button", name="Send")).to_be_enabled()
    await expect(body).to_be_focused()


async def test_below_a_path_and_without_a_token(new_page: OpenPage, start: Start, tmp_path: Path, watch: Watch) -> None:
    watch.expect("status of 40[14]")
    chat = await start(auth="jwt", jwt_secret=SECRET)
    async with nginx(tmp_path / "nginx", [chat.client.port]) as url:
        page = await open_docs(new_page, f"{url}/deep/er/")
        shown = await operation(page, "get_sessions")
        await expect(await send(shown)).to_contain_text('"code": "unauthorized"')
        await page.get_by_test_id("token").fill(token("alice"))
        await expect(await send(shown)).to_contain_text('"sessions": []')
        shown = await operation(page, "get_history")
        await shown.get_by_label("session_id").fill("sess/../x")
        await expect(await send(shown)).to_contain_text('"code": "not_found"')
        await page.reload()
        await expect(page.get_by_test_id("token")).to_have_value(re.compile("^ey"))
