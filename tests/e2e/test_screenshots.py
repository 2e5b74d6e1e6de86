"""The screenshots of the README: what a conversation looks like on a desk, on a phone and in the dark."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.chat_client import Chat
from tests.e2e.chat_page import ChatPage
from tests.e2e.conftest import OpenPage, url_of
from tests.model_server import Exchange, ModelServer

MAX_SIZE = 150 << 10  # bytes
DESK = {"viewport": {"width": 1280, "height": 800}}
SCREENS: dict[str, Any] = {
    "desktop": DESK,
    "dark": {**DESK, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "is_mobile": True,
        "has_touch": True,
    },
}
TITLES = [
    "A name for a sailing boat",
    "Sourdough, step by step",
    "Notes for Thursday",
    "How nginx buffers",
    "Tide tables",
]
QUESTION = "How do I stream a log file in Python as it grows?"
ANSWER = """Read what is there, then wait for more. A generator keeps it short:

```python
def follow(path):
    with open(path) as file:
        while True:
            if line := file.readline():
                yield line
            else:
                time.sleep(0.2)  # nothing new yet
```

Two things to know before you use it:

- A file that is **rotated** keeps its old handle: compare `os.stat(path).st_ino` now and then.
- A line may arrive in *two halves*; wait for its `\\n`.

| way | delay | cost |
| --- | --- | --- |
| polling, as above | up to 0.2 s | next to nothing |
| `inotify` | at once | one more library |
"""


async def answer(exchange: Exchange) -> None:
    await exchange.start(input_tokens=38)
    await exchange.text(ANSWER)
    await exchange.stop(output_tokens=187)


@pytest.fixture
async def written(chat: Chat, model: ModelServer) -> str:
    """Return the session that is shown, among others of the last days."""
    for title in TITLES:
        await chat.session(title=title)
    async with chat.turns.repo.connection() as conn:
        await conn.execute("UPDATE agent_sessions SET updated_at = now() - length(title) * interval '90 minutes'")
    session = str((await chat.session(title="Follow a log file"))["session_id"])
    model.play([answer])
    await chat.post(QUESTION, session)
    return session


async def settled(page: ChatPage) -> None:
    await expect(page.messages()).to_have_count(2)
    await expect(page.sessions()).to_have_count(len(TITLES) + 1)
    await expect(page.body().locator(".hljs-keyword").first).to_be_attached()
    await page.page.mouse.move(0, 0)
    await page.evaluate("document.fonts.ready.then(() => true)")


@pytest.mark.parametrize("screen", SCREENS)
async def test_it_can_be_shown(
    written: str, chat: Chat, new_page: OpenPage, screen: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    page = await new_page(url_of(chat), reduced_motion="reduce", locale="en-GB", **SCREENS[screen])
    await page.open(written)
    await settled(page)
    directory: Path = pytestconfig.getoption("--screenshots") or tmp_path
    directory.mkdir(parents=True, exist_ok=True)
    await page.screenshot(directory / f"{screen}.png")
    assert (directory / f"{screen}.png").stat().st_size <= MAX_SIZE
