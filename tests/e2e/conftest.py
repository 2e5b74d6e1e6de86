"""A real browser, Debian's Chromium, on the page of a real chatd; whatever a page complains about fails its test."""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from tests.chat_client import Chat
from tests.conftest import Start
from tests.e2e.chat_page import ChatPage

CHROMIUM = "/usr/bin/chromium"
OPTIONS = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
# Tells of violations that no console message would tell of.
REPORT_VIOLATIONS = """addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI, sample }) =>
    console.error("policy violated:", effectiveDirective, blockedURI, sample));"""

expect.set_options(timeout=10_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="where to put the screenshots that the README shows")


class Watch:
    """What pages complain about: errors, violations of their policy, requests to other hosts."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.expected: list[str] = []

    def expect(self, pattern: str) -> None:
        """Take complaints that contain this (a regular expression) for what the test is about."""
        self.expected.append(pattern)

    def has_heard(self, words: str) -> bool:
        return any(words in line for line in self.complaints)

    def unexpected(self) -> list[str]:
        return [line for line in self.complaints if not any(re.search(pattern, line) for pattern in self.expected)]

    def over(self, page: Page, url: str) -> None:
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", self._hear)
        page.on("request", lambda request: self._see(request, urlsplit(url).netloc))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _see(self, request: Request, host: str) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and parts.netloc != host:
            self.complaints.append(f"request: {request.url}")
        if "token" in parts.query or "ey" in parts.fragment:
            self.complaints.append(f"a token in a URL: {request.url}")


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    options = OPTIONS + (["--no-sandbox"] if os.geteuid() == 0 else [])
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        await browser.close()


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch()
    yield watch
    assert watch.unexpected() == []


OpenPage = Callable[..., Awaitable[ChatPage]]


@pytest.fixture
async def new_page(browser: Browser, watch: Watch, start: Start) -> AsyncIterator[OpenPage]:
    """Yield a function that opens a page (in `beside`'s browser, or one of its own) with Playwright's options.

    The pages are closed before the chatds that `start` started.
    """
    del start  # named for the order alone
    contexts = []

    async def new_page(url: str, beside: ChatPage | None = None, **options: Any) -> ChatPage:
        if beside is None:
            context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            await context.grant_permissions(["clipboard-read", "clipboard-write"])
            await context.add_init_script(REPORT_VIOLATIONS)
            contexts.append(context)
        else:
            context = beside.context
        page = await context.new_page()
        watch.over(page, url)
        return ChatPage(page, url)

    yield new_page
    for context in contexts:
        await context.close()


def url_of(chat: Chat) -> str:
    """Return where a chatd of this process has its page."""
    return str(chat.client.make_url("/"))


@pytest.fixture
async def page(new_page: OpenPage, chat: Chat) -> ChatPage:
    """Return the page, opened, of a chatd that asks for no tokens."""
    page = await new_page(url_of(chat))
    await page.open()
    return page
