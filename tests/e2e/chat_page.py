"""The page as a person uses it: a method an action, by the hooks that it keeps for tests (`data-testid`)."""

import asyncio
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Locator, Page, expect

from tests.chat_client import Chat

ENDED = "[data-status=complete], [data-status=stopped]"


class ChatPage:
    """A tab with the page of a chatd."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url

    @property
    def context(self) -> BrowserContext:
        return self.page.context

    def by(self, name: str) -> Locator:
        return self.page.get_by_test_id(name)

    async def open(self, session: str | None = None) -> None:
        """Go to the page, or a session in it, and wait until it can be used."""
        await self.page.goto(self.url + (f"#{session}" if session else ""))
        await expect(self.by("composer")).to_be_visible()

    async def reload(self) -> None:
        await self.page.reload()
        await expect(self.by("composer")).to_be_visible()

    async def evaluate(self, script: str, argument: Any = None) -> Any:
        return await self.page.evaluate(script, argument)

    async def until(self, script: str, seconds: float = 10) -> None:
        """Wait until a script says true; Playwright's own way of waiting is against the page's policy."""
        async with asyncio.timeout(seconds):
            while not await self.evaluate(script):
                await asyncio.sleep(0.02)

    # Writing

    async def write(self, text: str) -> None:
        await self.by("composer").fill(text)

    async def send(self, text: str) -> None:
        await self.write(text)
        await self.by("send").click()

    async def ask(self, text: str) -> None:
        """Send a message and wait for the end of its answer."""
        before = await self.messages().count()
        await self.send(text)
        await self.has_ended(before + 2)

    async def stop(self) -> None:
        await self.by("stop").click()

    # Messages

    def messages(self, role: str | None = None) -> Locator:
        kind = f"[data-role={role}]" if role else ""
        return self.by("messages").locator(f"> li{kind}")

    def answer(self) -> Locator:
        """Return the last answer."""
        return self.messages("assistant").last

    def body(self, message: Locator | None = None) -> Locator:
        return (message or self.answer()).locator(".message-body")

    async def has_ended(self, count: int, timeout: float = 30) -> None:
        """Wait until there are so many messages, the last of them an answer that has ended; in seconds."""
        await expect(self.messages()).to_have_count(count, timeout=timeout * 1000)
        await expect(self.answer().and_(self.page.locator(ENDED))).to_have_count(1, timeout=timeout * 1000)
        await expect(self.by("send")).to_be_visible()

    async def is_answering(self) -> None:
        await expect(self.answer()).to_have_attribute("data-status", "streaming")

    async def has_written(self, length: int) -> None:
        """Wait until there are so many characters of the answer."""
        async with asyncio.timeout(20):
            while await self.answer().count() == 0 or len(await self.body().inner_text()) < length:
                await asyncio.sleep(0.02)

    async def copied(self, button: Locator) -> str:
        """Press a button that copies, and return what it copied."""
        await self.evaluate("navigator.clipboard.writeText('nothing')")
        await button.click()
        await self.until("navigator.clipboard.readText().then((text) => text !== 'nothing')")
        return str(await self.evaluate("navigator.clipboard.readText()"))

    async def source(self, message: Locator | None = None) -> str:
        """Return a message as it was written."""
        message = message or self.answer()
        await message.hover()
        return await self.copied(message.get_by_test_id("copy-message"))

    def visible(self, name: str) -> Locator:
        return self.by(name).locator("visible=true")

    # Scrolling

    async def scroll(self, pixels: float) -> None:
        """Turn the wheel over the messages; less than 0 is up."""
        await self.page.locator(".scroller").hover()
        await self.page.mouse.wheel(0, pixels)

    async def is_at_end(self) -> None:
        """Wait until the view is at the end: it follows what is put in within a frame."""
        distance = "(({ scrollTop, clientHeight, scrollHeight }) => scrollHeight - scrollTop - clientHeight)"
        await self.until(f"{distance}(document.querySelector('.scroller')) < 4")

    # Sessions

    def sessions(self) -> Locator:
        return self.by("sessions").locator("> li")

    def session(self, title: str) -> Locator:
        return self.sessions().filter(has_text=title)

    async def open_session(self, title: str) -> None:
        await self.session(title).locator("a").click()
        await expect(self.by("session-title")).to_have_text(title)

    async def start_new(self) -> None:
        await self.by("new-session").click()

    async def search(self, text: str) -> None:
        await self.by("session-search").fill(text)

    async def rename(self, title: str, new: str) -> None:
        item = self.session(title)
        await item.hover()
        await item.get_by_test_id("rename").click()
        await self.by("rename-input").fill(new)
        await self.by("rename-input").press("Enter")

    async def delete(self, title: str) -> None:
        item = self.session(title)
        await item.hover()
        await item.get_by_test_id("delete").click()

    async def undo(self) -> None:
        await self.by("undo").click()

    def session_id(self) -> str:
        return self.page.url.partition("#")[2]

    # Who and how

    async def sign_in(self, token: str) -> None:
        await self.by("token-input").fill(token)
        await self.by("sign-in-submit").click()

    async def has_state(self, state: str, timeout: float = 20) -> None:
        """Wait until the connection is `online`, `reconnecting` or `offline`; in seconds."""
        await expect(self.by("connection")).to_have_attribute("data-state", state, timeout=timeout * 1000)

    async def focused(self) -> str:
        """Return the test id of what has the focus, or its element's name."""
        script = "document.activeElement.closest('[data-testid]')?.dataset.testid ?? document.activeElement.localName"
        return str(await self.evaluate(script))

    async def tab_to(self, name: str, key: str = "Tab", most: int = 60) -> None:
        """Press Tab until an element of this test id has the focus."""
        for _ in range(most):
            if await self.evaluate("document.activeElement.dataset.testid") == name:
                return
            await self.page.keyboard.press(key)
        raise AssertionError(f"{key} does not lead to {name}; it is at {await self.focused()}")

    async def screenshot(self, file: Path) -> None:
        await self.page.screenshot(path=file, animations="disabled", caret="hide")


async def questions(chat: Chat, session_id: str) -> list[str]:
    """Return the messages that a session has of its user."""
    messages = (await chat.history(session_id))["messages"]
    return [message["content"] for message in messages if message["role"] == "user"]


async def session_in(page: ChatPage, chat: Chat) -> str:
    """Open a session of its own."""
    session_id = (await chat.session(title="Here"))["session_id"]
    await page.open(session_id)
    await expect(page.by("session-title")).to_have_text("Here")
    return str(session_id)
