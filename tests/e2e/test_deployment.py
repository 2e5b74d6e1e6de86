"""The page behind nginx: Debian's, as it is installed, and below a path."""

import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.chat_client import Chat
from tests.conftest import Start
from tests.e2e.chat_page import ChatPage
from tests.e2e.conftest import OpenPage, Watch
from tests.e2e.nginx.site import deployed
from tests.e2e.scripts import Held, cut, paced, prose, resumed
from tests.faults.nginx import nginx
from tests.model_server import ModelServer
from tests.server_process import ServerProcess, serving
from tests.token_provider import SECRET, token

DEBIANS = Path("/usr/sbin/nginx")


@pytest.fixture
async def proxy(chat: Chat, tmp_path: Path) -> AsyncIterator[str]:
    async with nginx(tmp_path / "nginx", [chat.client.port], DEBIANS) as url:
        yield url


@pytest.mark.parametrize("path", ["/", "/deep/er/"])
async def test_the_usual(proxy: str, new_page: OpenPage, chat: Chat, model: ModelServer, path: str) -> None:
    page = await new_page(proxy + path)
    await do_the_usual(page, chat, model)
    assert page.page.url.startswith(f"{proxy}{path}#sess-")


@pytest.mark.parametrize("tls", [False, True])
async def test_the_site_file(new_page: OpenPage, start: Start, model: ModelServer, tmp_path: Path, tls: bool) -> None:
    """The file that is deployed, as it is and with TLS; there is no token, since signing in is tested elsewhere."""
    chat = await start(allow_anonymous=True)
    async with deployed(tmp_path / "nginx", f"127.0.0.1:{chat.client.port}", DEBIANS, tls=tls) as site:
        page = await new_page(f"{site.url}/", ignore_https_errors=True)
        await do_the_usual(page, chat, model)


async def do_the_usual(page: ChatPage, chat: Chat, model: ModelServer) -> None:
    """Ask, look on, reload, rename, delete and undo."""
    await page.open()
    held = Held("The first half, ", "and the second.")
    model.play([held])
    await page.send("hello")
    await expect(page.body()).to_contain_text("The first half,")  # nothing on the way waits for the whole
    held.go_on.set()
    await page.has_ended(2)
    await page.ask("and again")
    await page.reload()
    await expect(page.messages()).to_have_count(4)
    await page.rename("hello", "renamed")
    await expect(page.by("session-title")).to_have_text("renamed")
    session = page.session_id()
    await page.delete("renamed")
    await page.undo()
    await expect(page.sessions()).to_have_count(1)
    assert (await chat.history(session))["message_count"] == 4


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


async def test_chatd_is_killed_behind_it(new_page: OpenPage, model: ModelServer, tmp_path: Path, watch: Watch) -> None:
    watch.expect("ERR_|status of 50[234]")
    text = prose(4000)
    model.default = resumed(text, rate=60)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as passed:
        server = ServerProcess(passed, CHATD_DATA_DIR=str(tmp_path / "data"), ANTHROPIC_BASE_URL=model.url)
        async with nginx(tmp_path / "nginx", [passed.getsockname()[1]], DEBIANS) as url:
            async with serving(server):
                page = await new_page(f"{url}/")
                await page.open()
                await page.send("A long story.")
                await page.has_written(500)
                await server.end(signal.SIGKILL)
                await page.has_state("reconnecting")
            async with serving(server):
                await page.has_ended(2, timeout=60)
                assert await page.source() == text


@pytest.fixture
async def signing_proxy(start: Start, tmp_path: Path) -> AsyncIterator[str]:
    """Yield the URL of an nginx that adds a token to what it passes on."""
    chat = await start(auth="jwt", jwt_secret=SECRET)
    directives = f'proxy_set_header Authorization "Bearer {token("alice")}";'
    async with nginx(tmp_path / "nginx", [chat.client.port], DEBIANS, directives) as url:
        yield url


async def test_a_proxy_that_signs_in(signing_proxy: str, new_page: OpenPage) -> None:
    page = await new_page(f"{signing_proxy}/")
    await page.open()
    await page.ask("hello")
    await expect(page.by("sign-in")).to_be_hidden()
    await expect(page.by("sign-out")).to_be_hidden()


async def test_another_chatd_below_another_path(proxy: str, new_page: OpenPage, watch: Watch) -> None:
    """What is written for one of two, and is on its way to it, is not for the other one."""
    watch.expect("Failed to load resource")
    one = await new_page(f"{proxy}/deep/er/")
    await one.open()
    await one.page.route("**/agent/chat/stream", lambda route: route.abort())
    await one.send("for this one alone")
    await one.write("a draft for it")
    await one.page.goto("about:blank")
    other = await new_page(f"{proxy}/", beside=one)
    await other.open()
    await other.ask("for the other one")
    await expect(other.by("composer")).to_have_value("")
    await one.page.unroute("**/agent/chat/stream")
    await one.open()
    await one.has_ended(2)
    await expect(one.body(one.messages("user"))).to_have_text("for this one alone")
    await expect(one.by("composer")).to_have_value("a draft for it")
