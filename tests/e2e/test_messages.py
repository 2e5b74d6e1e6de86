"""Messages as they are shown, and the older ones."""

import re

import pytest
from playwright.async_api import expect

from tests.chat_client import Chat
from tests.e2e.chat_page import ChatPage
from tests.e2e.conftest import OpenPage, url_of
from tests.model_server import ModelServer, says

TOP = "(element) => element.getBoundingClientRect().top"
CODE = 'def tide(hour: int) -> float:\n    """Metres."""\n    return 2 * hour  # too simple'
ANSWER = f"""# Tides

Two things make them:

1. the **Moon**
2. the *Sun*

| body | share |
| --- | ---: |
| Moon | 68 % |

> Spring tides come at new and full moon.

```python
{CODE}
```

Read [more](https://tides.example/more) or `tide(3)`. ![a chart](https://charts.example/chart.png)
"""


async def test_markdown(page: ChatPage, model: ModelServer) -> None:
    model.play([says(*re.findall(r"[\s\S]{1,7}", ANSWER))])
    await page.ask("What makes tides?")
    body = page.body()
    await expect(body.get_by_role("heading", name="Tides")).to_be_visible()
    await expect(body.locator("ol > li strong")).to_have_text("Moon")
    await expect(body.locator("ol > li em")).to_have_text("Sun")
    await expect(body.locator("td").last).to_have_text("68 %")
    await expect(body.locator("blockquote")).to_contain_text("Spring tides")
    await expect(body.locator("p code")).to_have_text("tide(3)")
    link = body.get_by_role("link", name="more")
    await expect(link).to_have_attribute("href", "https://tides.example/more")
    await expect(link).to_have_attribute("rel", re.compile("noopener"))
    await expect(body.locator("img")).to_have_count(0)
    await page.reload()
    await expect(page.body().locator("ol > li strong")).to_have_text("Moon")
    assert await page.source() == ANSWER


async def test_what_the_user_wrote_is_shown_as_it_is(page: ChatPage) -> None:
    written = "**not** bold <b>x</b>\n  indented\n\n# no heading"
    await page.ask(written)
    body = page.body(page.messages("user"))
    assert await body.evaluate("(element) => element.textContent") == written
    await expect(body.locator("strong, b, h1, h3")).to_have_count(0)
    assert await body.evaluate("(element) => getComputedStyle(element).whiteSpace") in {"pre-wrap", "break-spaces"}


async def test_code_is_highlighted_and_copied(page: ChatPage, model: ModelServer) -> None:
    model.play([says(*re.findall(r"[\s\S]{1,7}", ANSWER))])
    await page.ask("code, please")
    code = page.body().locator("pre code")
    await expect(code.locator(".hljs-keyword").first).to_have_text("def")
    colours = await code.evaluate(
        """(code) => [code, code.querySelector('.hljs-keyword')].map((element) => getComputedStyle(element).color)"""
    )
    assert colours[0] != colours[1]
    assert await page.copied(page.body().get_by_test_id("copy-code")) == CODE


async def test_when_it_was_written_and_what_it_took(page: ChatPage, chat: Chat) -> None:
    await page.ask("hello")
    for _ in range(2):
        message = (await chat.history(page.session_id()))["messages"][-1]
        time = page.answer().get_by_test_id("time")
        await expect(time).to_have_attribute("datetime", re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d"))
        await expect(time).not_to_be_empty()
        usage = page.answer().get_by_test_id("token-usage")
        await expect(usage).to_contain_text("19")  # 11 and 8 from the cache
        await expect(usage).to_contain_text(str(message["token_usage"]["output_tokens"]))
        await expect(page.messages("user").get_by_test_id("time")).not_to_be_empty()
        await page.reload()
        await expect(page.messages()).to_have_count(2)


@pytest.fixture
async def long_session(chat: Chat) -> str:
    """Return a session of 240 messages."""
    session = str((await chat.session(title="long"))["session_id"])
    for number in range(120):
        await chat.post(f"question {number}", session)
    return session


async def test_older_messages_come_without_the_view_jumping(chat: Chat, new_page: OpenPage, long_session: str) -> None:
    page = await new_page(url_of(chat))
    await page.open(long_session)
    await expect(page.body(page.messages("user").last)).to_have_text("question 119")
    await page.is_at_end()
    seen = await page.messages().count()
    assert seen < 240
    for _ in range(20):
        if seen == 240:
            break
        first = page.messages().nth(2)
        anchor = page.by("messages").locator(f"[data-message-id={await first.get_attribute('data-message-id')}]")
        await anchor.scroll_into_view_if_needed()
        before = await anchor.evaluate(TOP)
        await page.until(f"document.querySelectorAll('[data-message-id]').length > {seen}")
        await page.page.wait_for_timeout(300)
        after = await anchor.evaluate(TOP)
        assert abs(after - before) <= 2, f"{after - before} px, with {seen} messages"
        seen = await page.messages().count()
    questions = await page.messages("user").locator(".message-body").all_text_contents()
    assert questions == [f"question {number}" for number in range(120)]
    await expect(page.by("older")).to_be_hidden()


async def test_older_messages_come_with_the_wheel(chat: Chat, new_page: OpenPage, long_session: str) -> None:
    page = await new_page(url_of(chat))
    await page.open(long_session)
    await expect(page.body(page.messages("user").last)).to_have_text("question 119")
    for _ in range(100):
        await page.scroll(-1500)
        await page.page.wait_for_timeout(30)
        if await page.body(page.messages("user").first).text_content() == "question 0":
            break
    await expect(page.messages()).to_have_count(240)
