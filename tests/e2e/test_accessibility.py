"""For everyone: by keyboard alone, by ear, on narrow screens, in the dark, without motion, from right to left."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.chat_client import Chat
from tests.conftest import Start
from tests.e2e.chat_page import ChatPage
from tests.e2e.conftest import OpenPage, Watch, url_of
from tests.e2e.scripts import Held, cut, paced, prose
from tests.e2e.test_messages import ANSWER
from tests.model_server import ModelServer, fails, says
from tests.token_provider import SECRET

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
NARROW = {"viewport": {"width": 320, "height": 640}}
DARK = {"color_scheme": "dark"}
WIDE = ANSWER + "\n" + "| " + " | ".join(["a wide table"] * 12) + " |\n" + "| --- " * 12 + "|\n\n" + "long" * 200
# How an element looks, and what is around it: a field's frame may be its parent's.
LOOKS = """(element) => [element, element.parentElement].map((one) => {
    const { outlineStyle, outlineWidth, boxShadow, borderColor, backgroundColor } = getComputedStyle(one);
    return [outlineStyle, outlineWidth, boxShadow, borderColor, backgroundColor];
}).join()"""
NOTE_MOVES = """() => { window.moves = [];
    for (const type of ["transitionrun", "animationstart"])
        addEventListener(type, (event) => window.moves.push(event.propertyName ?? event.animationName)); }"""
COVERS = """(name) => {
    const box = (id) => document.querySelector(`[data-testid=${id}]`).getBoundingClientRect();
    const toast = box("toast"), it = box(name);
    return toast.left < it.right && it.left < toast.right && toast.top < it.bottom && it.top < toast.bottom; }"""
ARABIC = "البحر هادئ الليلة والريح خفيفة."


async def violations(page: ChatPage) -> list[str]:
    """Return what axe-core finds serious or critical, and where."""
    results: dict[str, Any] = (await Axe().run(page.page)).response
    grave = [found for found in results["violations"] if found["impact"] in {"serious", "critical"}]
    return [f"{found['id']}: {[node['html'][:120] for node in found['nodes'][:3]]}" for found in grave]


async def conversation(page: ChatPage, model: ModelServer) -> None:
    model.play([says(ANSWER)])
    await page.ask("What makes tides?")
    await expect(page.body().locator(".hljs-keyword").first).to_be_visible()
    await page.page.mouse.move(0, 0)


@pytest.mark.parametrize("options", [{}, DARK, PHONE, {**PHONE, **DARK}], ids=["light", "dark", "phone", "dark phone"])
async def test_axe_finds_nothing(new_page: OpenPage, chat: Chat, model: ModelServer, options: Any) -> None:
    page = await new_page(url_of(chat), reduced_motion="reduce", **options)
    await page.open()
    assert await violations(page) == []
    await conversation(page, model)
    assert await violations(page) == []
    model.play([fails(400, "invalid_request_error")])
    await page.send("and now fail")
    await expect(page.visible("error-notice")).to_have_count(1)
    assert await violations(page) == []
    if "is_mobile" in options:
        await page.by("menu").click()
        await expect(page.by("session-search")).to_be_in_viewport()
        assert await violations(page) == []
    await page.delete("What makes tides?")
    await expect(page.by("toast")).to_be_visible()
    assert await violations(page) == []


@pytest.mark.parametrize("options", [{}, DARK], ids=["light", "dark"])
async def test_axe_finds_nothing_in_the_dialog(start: Start, new_page: OpenPage, watch: Watch, options: Any) -> None:
    watch.expect("status of 401")
    page = await new_page(url_of(await start(auth="jwt", jwt_secret=SECRET)), **options)
    await page.open()
    await page.sign_in("rubbish")
    await expect(page.by("sign-in").get_by_role("alert")).not_to_be_empty()
    assert await violations(page) == []


async def test_the_keyboard_alone_does_everything(page: ChatPage, model: ModelServer) -> None:
    keyboard = page.page.keyboard
    assert await page.focused() == "composer"
    await keyboard.type("first question")
    await expect(page.by("send")).to_be_enabled()
    await keyboard.press("Enter")
    await page.has_ended(2)
    assert await page.focused() == "composer"
    await page.tab_to("new-session", "Shift+Tab")
    await keyboard.press("Enter")
    await expect(page.messages()).to_have_count(0)
    assert await page.focused() == "composer"
    model.play([paced(cut(prose(4000), 10), rate=50)])
    await keyboard.type("second question")
    await page.tab_to("send")
    await keyboard.press("Space")
    await page.is_answering()
    await page.tab_to("stop")
    await keyboard.press("Enter")
    await expect(page.answer()).to_have_attribute("data-status", "stopped")
    await page.tab_to("rename", "Shift+Tab")
    await keyboard.press("Enter")
    await keyboard.press("Control+A")
    await keyboard.type("renamed")
    await keyboard.press("Enter")
    await expect(page.session("renamed")).to_be_visible()
    await page.tab_to("delete")
    await keyboard.press("Enter")
    await expect(page.by("toast")).to_be_visible()
    await page.tab_to("undo")
    await keyboard.press("Enter")
    await expect(page.sessions()).to_have_count(2)
    await page.tab_to("session-search", "Shift+Tab")
    await keyboard.type("renamed")
    await expect(page.sessions()).to_have_count(1)
    await keyboard.press("Tab")
    await keyboard.press("Enter")
    await expect(page.by("session-title")).to_have_text("renamed")
    await expect(page.body()).to_have_text("Hello, world.")
    await page.tab_to("copy-message", "Shift+Tab")
    await keyboard.press("Enter")
    await page.until("navigator.clipboard.readText().then((text) => text === 'Hello, world.')")


async def test_what_has_the_focus_is_seen(page: ChatPage, model: ModelServer) -> None:
    await conversation(page, model)
    await page.by("new-session").focus()
    seen = set()
    for _ in range(25):
        await page.page.keyboard.press("Tab")
        element = (await page.page.evaluate_handle("document.activeElement")).as_element()
        assert element is not None
        seen.add(name := await page.focused())
        focused = await element.evaluate(LOOKS)
        await element.evaluate("(element) => element.blur()")
        assert name == "body" or await element.evaluate(LOOKS) != focused, name
        await element.focus()
    assert {"session-search", "composer", "copy-code"} <= seen


async def test_the_drawer_of_a_narrow_screen_by_keyboard(new_page: OpenPage, chat: Chat) -> None:
    await chat.session(title="one to open")
    page = await new_page(url_of(chat), **NARROW)
    await page.open()
    await expect(page.by("session-search")).not_to_be_in_viewport()
    await page.tab_to("menu", "Shift+Tab")
    await page.page.keyboard.press("Enter")
    await expect(page.by("menu")).to_have_attribute("aria-expanded", "true")
    await expect(page.by("session-search")).to_be_in_viewport()
    await page.page.keyboard.press("Escape")
    await expect(page.by("session-search")).not_to_be_in_viewport()
    assert await page.focused() == "menu"
    await page.page.keyboard.press("Enter")
    await page.tab_to("session-search")
    await page.page.keyboard.press("Tab")
    await page.page.keyboard.press("Enter")
    await expect(page.by("session-title")).to_have_text("one to open")
    await expect(page.by("session-search")).not_to_be_in_viewport()


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2560])
async def test_nothing_is_wider_than_the_screen(new_page: OpenPage, chat: Chat, model: ModelServer, width: int) -> None:
    page = await new_page(url_of(chat), viewport={"width": width, "height": 700})
    await page.open()
    model.play([says(WIDE)])
    await page.ask("w" * 300)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(overflow) <= 0
    scroller = await page.evaluate(
        "(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)(document.querySelector('.scroller'))"
    )
    assert scroller <= 0
    for name in ("composer", "send"):
        await expect(page.by(name)).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("options", [{}, PHONE, NARROW], ids=["desk", "phone", "narrow"])
async def test_the_toast_covers_nothing_that_is_needed(new_page: OpenPage, chat: Chat, options: Any) -> None:
    for title in ("a rather long title of something that was talked of once upon a time", "another"):
        await chat.session(title=title)
    page = await new_page(url_of(chat), **options)
    await page.open()
    if options:
        await page.by("menu").click()
    await page.delete("a rather long title")
    await expect(page.by("undo")).to_be_in_viewport(ratio=1)
    if options:
        await page.page.keyboard.press("Escape")
    for name in ("composer", "send", "session-title"):
        assert not await page.page.evaluate(COVERS, name), name
    await page.undo()
    await expect(page.by("toast")).to_be_hidden()


async def test_zoomed_text_still_fits(new_page: OpenPage, chat: Chat, model: ModelServer) -> None:
    page = await new_page(url_of(chat), **NARROW)
    await page.open()
    model.play([says(ANSWER)])
    await page.ask("hello")
    await page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


async def test_a_screen_reader_hears_sentences(page: ChatPage, model: ModelServer) -> None:
    text = prose(700).replace("\n\n", " ")
    model.play([paced(cut(text, 5), rate=40)])
    announcer = page.by("announcer")
    await expect(announcer).to_have_attribute("aria-live", "polite")
    await page.evaluate(
        """() => { window.heard = [];
        new MutationObserver((changes) => changes.forEach(({ addedNodes }) =>
            addedNodes.forEach((node) => window.heard.push(node.textContent))))
            .observe(document.querySelector("[data-testid=announcer]"), { childList: true, subtree: true }); }"""
    )
    await page.send("Tell me.")
    await page.has_ended(2)
    heard = await page.evaluate("window.heard")
    assert 2 <= len(heard) <= 8
    assert all(part.rstrip().endswith(".") for part in heard)
    assert " ".join(" ".join(heard[:-1]).split()) == " ".join(text.split())
    live = "[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log]"
    inside = await page.by("messages").locator(live).and_(page.page.locator(":not(button)")).count()
    assert inside == 0
    assert await page.evaluate(f"document.querySelector('[data-testid=messages]').closest('{live}') === null")


async def test_without_motion_nothing_moves(new_page: OpenPage, chat: Chat, model: ModelServer) -> None:
    held = Held("Half ", "whole.")
    for motion, moves in (("reduce", False), ("no-preference", True)):
        page = await new_page(url_of(chat), reduced_motion=motion, **NARROW)
        await page.open()
        model.play([held])
        await page.send("hello")
        await page.is_answering()
        await page.evaluate(NOTE_MOVES)
        await page.by("menu").click()
        await expect(page.by("menu")).to_have_attribute("aria-expanded", "true")
        if moves:
            await page.until("window.moves.includes('translate')")
        else:
            await asyncio.sleep(0.5)  # in which it would have begun
            assert await page.evaluate("window.moves") == []
    held.go_on.set()


async def test_text_from_right_to_left(page: ChatPage, model: ModelServer) -> None:
    model.play([says(ARABIC + "\n\nAnd a line in English.")])
    await page.ask(ARABIC)
    direction = "(element) => getComputedStyle(element).direction"
    assert await page.body(page.messages("user")).evaluate(direction) == "rtl"
    blocks = page.body().locator("p")
    assert [await block.evaluate(direction) for block in await blocks.all()] == ["rtl", "ltr"]
    assert await page.by("session-title").evaluate(direction) == "rtl"
    box, line = await blocks.first.bounding_box(), await text_box(page, blocks.first.evaluate)
    assert box is not None
    assert line["right"] > box["x"] + box["width"] - 4
    await page.write(ARABIC)
    assert await page.by("composer").evaluate(direction) == "rtl"


async def text_box(page: ChatPage, evaluate: Callable[[str], Awaitable[Any]]) -> Any:
    """Return where an element's text itself is."""
    return await evaluate(
        """(element) => { const range = document.createRange(); range.selectNodeContents(element);
        return range.getBoundingClientRect().toJSON(); }"""
    )
