"""What renders markdown, in a real browser under the page's policy: safety, exactness, speed."""

import asyncio
import gzip
import hashlib
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright

from tests.e2e.markdown_samples import BLOCKS, HOSTILE, slow

WEB = Path(__file__).parent.parent.parent / "chatd" / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
HTML = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Markdown</title><link rel="icon" href="data:,">'
    '<link rel="stylesheet" href="web/markdown.css"><main></main></html>'
)
MODULES = ("blocks", "code-block", "growth", "highlight", "markdown", "sanitise", "streaming", "update-timer")
SETUP = """async () => {
    const { renderMarkdown } = await import("/web/markdown.js");
    const { StreamingMarkdown } = await import("/web/streaming.js");
    globalThis.main = document.querySelector("main");
    globalThis.show = (text) => main.replaceChildren(renderMarkdown(text));
    globalThis.html = (text) => {
        const div = document.createElement("div");
        div.append(renderMarkdown(text));
        return div.innerHTML;
    };
    globalThis.frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    globalThis.start = (onUpdate) => (globalThis.streaming = new StreamingMarkdown(main, { onUpdate }));
    globalThis.add = (piece) => new Promise((resolve) => { start.updated = resolve; streaming.append(piece) });
    globalThis.begin = (piece) => { start(() => start.updated?.()); return add(piece) };
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
}"""
ALLOWED = {
    *("a", "blockquote", "br", "button", "code", "del", "div", "em", "h3", "h4", "h5", "h6", "hr", "input", "li"),
    *("ol", "p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
async def markdown_url() -> AsyncIterator[str]:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=HTML, content_type="text/html", headers={"Content-Security-Policy": POLICY})

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_static("/web/", WEB)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


@pytest.fixture
async def page(browser: Browser, markdown_url: str) -> AsyncIterator[Page]:
    """A page with `show(text)`, `html(text)` and `start()`; it must have had no error at the end."""
    page = await browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto(markdown_url)
    await page.evaluate(SETUP)
    yield page
    await page.close()
    assert errors == []


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_markdown_does_nothing(page: Page, markdown_url: str, name: str) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    await page.evaluate("show", HOSTILE[name])
    for piece in [*HOSTILE[name]]:
        await page.evaluate("piece => (globalThis.streaming ?? start()).append(piece)", piece)
    await page.evaluate(
        "() => { main.querySelectorAll('*').forEach(element => element.dispatchEvent(new Event('mouseover'))) }"
    )
    await asyncio.sleep(0.1)
    found = await page.evaluate("""() => [...main.querySelectorAll("*")].map(({ localName, attributes }) =>
        [localName, [...attributes].map(({ name, value }) => [name, value])])""")
    assert {tag for tag, _ in found} <= ALLOWED
    assert [
        name
        for _, attributes in found
        for name, _ in attributes
        if name.startswith("on") or name in ("id", "name", "src")
    ] == []
    links = [value for _, attributes in found for name, value in attributes if name == "href"]
    assert all(re.match(r"(https?://|mailto:)", link) for link in links)
    assert await page.evaluate("globalThis.hacked") is None
    assert [url for url in requests if not url.startswith(markdown_url)] == []
    assert await page.evaluate("violations.filter(name => name !== 'script-src-attr')") == []


async def test_html_is_shown_as_text(page: Page) -> None:
    text = "a <b>bold</b> <script>x</script> &lt; <!-- c -->"
    await page.evaluate("show", text)
    assert await page.evaluate("main.textContent") == text.replace("&lt;", "<")


async def test_links_lead_outwards_and_images_are_links(page: Page) -> None:
    await page.evaluate(
        "show", '[a](https://a.example "T") www.b.example ![c](http://c.example/c.png) [](mailto:d@d.example)'
    )
    links = await page.evaluate(
        """() => [...main.querySelectorAll("a")].map((a) => [a.href, a.textContent, a.target, a.rel])"""
    )
    rest = ["_blank", "noopener noreferrer nofollow"]
    assert links == [
        ["https://a.example/", "a", *rest],
        ["http://www.b.example/", "www.b.example", *rest],
        ["http://c.example/c.png", "c", *rest],
        ["mailto:d@d.example", "mailto:d@d.example", *rest],
    ]


async def test_structure_is_for_everyone(page: Page) -> None:
    await page.evaluate(
        "show", "# One\n\n|a|b|\n|-|:-:|\n|1|2|\n\n- [x] done\n- [ ] to do\n\n5. five\n\n\u05d0\u05d1\u05d2"
    )
    assert await page.evaluate("main.firstElementChild.localName") == "h3"
    table = "(({ tabIndex, role, ariaLabel }) => [tabIndex, role, ariaLabel])(main.querySelector('.table-scroll'))"
    assert await page.evaluate(table) == [0, "group", "Table"]
    assert await page.evaluate("main.querySelectorAll('td')[1].align") == "center"
    boxes = """[...main.querySelectorAll("input")].map(
        ({ type, disabled, checked, ariaLabel }) => [type, disabled, checked, ariaLabel])"""
    assert await page.evaluate(boxes) == [["checkbox", True, True, "done"], ["checkbox", True, False, "to do"]]
    assert await page.evaluate("main.querySelector('ol').start") == 5
    assert await page.evaluate("getComputedStyle(main.lastElementChild).direction") == "rtl"


async def test_code_is_highlighted_and_copied(page: Page) -> None:
    code = 'def f():\n    return "<b>"'
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.evaluate("show", f"```py title=x\n{code}\n```\n\n```unknown\nx\n```")
    await page.wait_for_selector(".hljs-keyword")
    block = page.locator(".code-block").first
    assert await block.locator("code").text_content() == code
    assert await block.locator(".code-language").text_content() == "py"
    await block.get_by_test_id("copy-code").click()
    await page.wait_for_function("() => main.querySelector('button').textContent === 'Copied'")
    assert await page.evaluate("navigator.clipboard.readText()") == code
    await page.wait_for_function("() => main.querySelector('button').textContent === 'Copy'", timeout=4_000)


async def test_code_is_copied_without_the_clipboard_api(page: Page) -> None:
    await page.context.grant_permissions(["clipboard-read"])
    await page.evaluate("show", "```\nplain\n```")
    await page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed')) }")
    await page.get_by_test_id("copy-code").click()
    await page.wait_for_function("() => main.querySelector('button').textContent === 'Copied'")
    assert await page.evaluate("navigator.clipboard.readText()") == "plain"


@pytest.mark.parametrize("name", slow(10))
@pytest.mark.parametrize("size", [1_000_000, 190_000])
async def test_no_text_freezes_the_page(page: Page, name: str, size: int) -> None:
    took = await page.evaluate(
        """(text) => {
        const took = [];
        for (let start; took.length < 5 && !(took.at(-1) < 500); took.push(performance.now() - start)) {
            start = performance.now();
            show(text);
        }
        return took;
    }""",
        slow(size)[name],
    )
    assert min(took) < 500
    assert await page.evaluate("main.childElementCount") > 0 or not slow(size)[name].strip()


async def test_text_beyond_the_bounds_is_shown_as_it_is(page: Page) -> None:
    text = "**a** `b`\n" * 30_000
    await page.evaluate("show", text)
    assert await page.evaluate("text => main.textContent === text && main.querySelector('pre.plain') !== null", text)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("seed", range(12))
async def test_any_split_ends_as_the_whole(page: Page, seed: int, line_end: str) -> None:
    text = (BLOCKS if seed < 6 else shuffled(seed)).replace("\n", line_end)
    await load_grammars(page)
    await stream(page, text, seed)
    assert await page.evaluate("streaming.finish(), main.innerHTML") == await page.evaluate("html", text)
    assert await page.evaluate("text => (streaming.finish(text), main.innerHTML)", BLOCKS) == await page.evaluate(
        "html", BLOCKS
    )


@pytest.mark.parametrize("seed", range(4))
async def test_what_was_received_is_visible(page: Page, seed: int) -> None:
    words = [f"w{number}" for number in range(300)]
    text = spread(words, seed)
    seen = await stream(page, text, seed, look=True)
    for received, visible in seen:
        expected = re.findall(r"w\d+(?=\W)", received)
        assert re.findall(r"w\d+", visible)[: len(expected)] == expected


async def test_finished_blocks_are_left_alone(page: Page) -> None:
    await load_grammars(page)
    await page.evaluate("begin('# One\\n\\nTwo\\n\\n```py\\nx = 1\\n```\\n\\nLast paragraph so far')")
    await page.evaluate("""() => { globalThis.standing = [...main.children].slice(0, 3); globalThis.touched = 0;
        const observer = new MutationObserver((records) => (touched += records.length));
        standing.forEach((element) => observer.observe(element, {
            childList: true, subtree: true, characterData: true })) }""")
    for piece in [" and more", " of it\n", "\n- item", "\n- item\n\n", "End", "\n"]:
        await page.evaluate("add", piece)
    await page.evaluate("streaming.finish()")
    assert await page.evaluate("standing.every((element, index) => element === main.children[index]) && touched === 0")


async def test_an_open_fence_only_gets_text_appended(page: Page) -> None:
    await page.evaluate("begin('Text:\\n\\n```python\\nx = 1\\n')")
    await page.evaluate("globalThis.node = main.querySelector('code').firstChild")
    for number in range(20):
        await page.evaluate("add", f"y = {number}\n# - `` *a*")
    assert await page.evaluate("main.querySelector('code').firstChild === node && node.data.endsWith('# - `` *a*')")
    assert await page.evaluate("main.querySelector('.code-language').textContent") == "python"
    await page.evaluate("add('\\n```\\n\\nAfter the code')")
    await page.wait_for_selector("code .hljs-number")
    assert await page.evaluate("main.lastElementChild.textContent") == "After the code"


async def test_no_marks_flash_up(page: Page) -> None:
    await page.evaluate("begin('A list:\\n-')")
    assert await page.evaluate("main.innerHTML") == '<p dir="auto">A list:</p>'


async def test_reset_starts_over(page: Page) -> None:
    await page.evaluate("begin('```\\ncode')")
    await page.evaluate("streaming.reset('New **text**')")
    assert await page.evaluate("main.innerHTML") == '<p dir="auto">New <strong>text</strong></p>'


async def test_a_hidden_tab_gets_on(page: Page) -> None:
    await page.evaluate("globalThis.requestAnimationFrame = () => 0")
    await page.evaluate("start().append('Some text')")
    await page.wait_for_function("() => main.textContent === 'Some text'", timeout=3_000, polling=50)


LONG = {
    "many blocks": BLOCKS * 80,
    "one paragraph": "Some words with **strong** ones. " * 3_500,
    "one list": "- an item with *emphasis* and `code`\n" * 3_000,
    "one fence": "```python\n" + 'value = function("text", 12)  # why\n' * 3_000 + "```\n",
    "one table": "| a | b |\n|---|---|\n" + "| some words | other `words` |\n" * 3_500,
}


# Streams a text, 200 pieces a second; returns the milliseconds of all long tasks, of the longest one and of it all.
MEASURE = """async (text) => {
    const tasks = [];
    new PerformanceObserver((list) => tasks.push(...list.getEntries())).observe({ type: "longtask" });
    const { length } = text, begun = performance.now();
    start();
    for (let at = 0; at < length; ) {
        const due = Math.min(length, Math.ceil((performance.now() - begun) / 5) * 200);
        for (; at < due; at += 200) streaming.append(text.slice(at, at + 200));
        await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await frame();
    const durations = tasks.map(({ duration }) => duration);
    return [durations.reduce((sum, one) => sum + one, 0), Math.max(0, ...durations), performance.now() - begun];
}"""


@pytest.mark.parametrize("name", LONG)
async def test_long_answers_stream_smoothly(page: Page, name: str) -> None:
    """200 pieces a second until 100 KB are there; the main thread must stay free for most of the time."""
    await load_grammars(page)
    for _ in range(5):  # the cores may have had something else to do
        busy, longest, took = await page.evaluate(MEASURE, LONG[name][:110_000])
        print(f"{name}: {took:.0f} ms, long tasks {busy:.0f} ms, longest {longest:.0f} ms")
        if busy < took / 2 and longest < 400:
            return
    raise AssertionError("the main thread is not free")


def test_everything_is_small() -> None:
    files = [WEB / f"{name}.js" for name in MODULES] + [WEB / "markdown.css", *WEB.glob("vendor/**/*.js")]
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in files}
    assert sum(sizes.values()) < 75_000


def test_the_vendored_files_are_those_of_the_table() -> None:
    rows = re.findall(r"`([^`]+\.js)` \| `([0-9a-f]{64})`", (WEB / "vendor" / "README.md").read_text())
    there = {
        str(path.relative_to(WEB / "vendor")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in WEB.glob("vendor/**/*.js")
    }
    assert dict(rows) == there


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_of_code_have_contrast(scheme: int) -> None:
    style = (WEB / "markdown.css").read_text()
    ground = re.findall(r"--code, light-dark\((#\w+), (#\w+)\)", style)[0][scheme]
    for pair in re.findall(r"  color: light-dark\((#\w+), (#\w+)\)", style):
        assert contrast(pair[scheme], ground) >= 4.5


def contrast(one: str, other: str) -> float:
    """The WCAG contrast ratio of two colours."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


async def load_grammars(page: Page) -> None:
    """Have the languages of the samples there: highlighting follows at once from now on."""
    await page.evaluate(
        "show", "\n\n".join(f"```{name}\nlet x = 1\n```" for name in ("python", "js", "bash", "c", "markdown", "css"))
    )
    await page.wait_for_function("() => main.querySelectorAll('code span').length >= 5")
    await page.wait_for_load_state("networkidle")
    await page.evaluate("main.replaceChildren()")


async def stream(page: Page, text: str, seed: int, *, look: bool = False) -> list[tuple[str, str]]:
    """Append a text in pieces of random lengths; with `look`, return what was received and visible after each."""
    pieces = split(text, seed)
    seen: list[list[Any]] = await page.evaluate(
        """async ([pieces, look]) => {
        const { StreamingMarkdown } = await import("/web/streaming.js");
        const seen = [];
        let received = "";
        globalThis.streaming = new StreamingMarkdown(main, { onUpdate: () => look && seen.push([received, text()]) });
        const text = () => [...main.children].map(({ textContent }) => textContent).join("\\n");
        for (const [index, piece] of pieces.entries()) {
            received += piece;
            streaming.append(piece);
            if (index % 3 === 0) await frame();
        }
        return seen;
    }""",
        [pieces, look],
    )
    return [(received, visible) for received, visible in seen]


def split(text: str, seed: int) -> list[str]:
    chance = random.Random(seed)
    pieces = []
    while text:
        size = chance.choice([1, 1, 2, 3, 5, 8, 40])
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def shuffled(seed: int) -> str:
    chance = random.Random(seed)
    lines = BLOCKS.split("\n")
    return "\n".join(chance.choices(lines, k=150))


def spread(words: list[str], seed: int) -> str:
    chance = random.Random(seed)
    gaps = [
        " ",
        "\n",
        "\n\n",
        "\n- ",
        "\n\n- ",
        "\n\n1. ",
        "\n> ",
        "\n\n## ",
        "\n\n```\n",
        "\n~~~\n",
        " **",
        "`",
        "\n---\n",
        "\n\n    ",
    ]
    return "".join(word + chance.choice(gaps) for word in words)
