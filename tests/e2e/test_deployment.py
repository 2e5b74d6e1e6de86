"""The page behind nginx: Debian's, as it is installed, and below a path."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.chat_client import Chat
from tests.e2e.chat_page import ChatPage
from tests.e2e.conftest import OpenPage
from tests.e2e.scripts import Held, cut, paced, prose
from tests.faults.nginx import nginx
from tests.model_server import ModelServer


@pytest.fixture
async def proxy(chat: Chat, tmp_path: Path) -> AsyncIterator[str]:
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert program, "nginx is not installed: apt-get install nginx-light"
    async with nginx(tmp_path / "nginx", [chat.client.port], Path(program)) as url:
        yield url


@pytest.mark.parametrize("path", ["/", "/deep/er/"])
async def test_the_usual(proxy: str, new_page: OpenPage, chat: Chat, model: ModelServer, path: str) -> None:
    page = await new_page(proxy + path)
    await page.open()
    held = Held("The first half, ", "and the second.")
    model.play([held])
    await page.send("hello")
    await expect(page.body()).to_contain_text("The first half,")  # nothing on the way waits for the whole
    held.go_on.set()
    await page.has_ended(2)
    assert page.page.url.startswith(f"{proxy}{path}#sess-")
    await page.ask("and again")
    await page.reload()
    await expect(page.messages()).to_have_count(4)
    await page.rename("hello", "renamed")
    await expect(page.by("session-title")).to_have_text("renamed")
    await page.delete("renamed")
    await page.undo()
    await expect(page.sessions()).to_have_count(1)
    assert (await chat.history(page.session_id()))["message_count"] == 4


async def test_a_long_answer_and_a_reload(proxy: str, new_page: OpenPage, model: ModelServer) -> None:
    page = await new_page(f"{proxy}/")
    await page.open()
    text = prose(4000)
    model.play([paced(cut(text, 10), rate=100)])
    await page.send("A long story.")
    await expect(page.body()).to_contain_text("The")
    await page.reload()
    await page.has_ended(2)
    assert await page.source() == text
