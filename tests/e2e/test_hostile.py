"""What a hostile model says: nothing of it runs, nothing leaves, and the page stays usable."""

import time
from functools import partial

import pytest
from playwright.async_api import Error, expect

from tests.chat_client import until
from tests.e2e.chat_page import ChatPage
from tests.e2e.conftest import Watch
from tests.model_server import ModelServer, says

RUN = "window.ran = true"
BAD = "script, iframe, object, embed, link, style, meta, base, form, svg, math, img, video, [onerror], [style]"
SAMPLES = [
    f"<script>{RUN}</script>",
    f"<img src=x onerror='{RUN}'>",
    f"<svg onload='{RUN}'><script>{RUN}</script></svg>",
    f"<iframe srcdoc='<script>parent.{RUN.removeprefix('window.')}</script>'></iframe>",
    f"<details open ontoggle='{RUN}'><summary>x</summary></details>",
    f"<a href='javascript:{RUN}'>click</a> <form action='javascript:{RUN}'><button>go</button></form>",
    f"[click](javascript:{RUN}) [click](JaVaScRiPt:{RUN}) [click](&#106;avascript:{RUN}) [click](java\tscript:{RUN})",
    f"[click](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==) [click](vbscript:{RUN}) <javascript:{RUN}>",
    f"[a]: javascript:{RUN}\n\n[click][a] ![img][a]",
    "![x](https://evil.example/pixel.png) ![x](//evil.example/pixel.png) <img src=https://evil.example/p.png>",
    "<link rel=stylesheet href=https://evil.example/x.css><style>@import 'https://evil.example/y.css'</style>",
    "<video poster=https://evil.example/v.png autoplay src=https://evil.example/v.mp4></video>",
    "<p style='background:url(https://evil.example/bg.png);position:fixed;inset:0'>over everything</p>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'><base href=https://evil.example/>",
    f"<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror={RUN}&gt;'>",
    f"<svg></p><style><a id='</style><img src=1 onerror={RUN}>'>",
    f"<form><math><mtext></form><form><mglyph><style></math><img src onerror={RUN}>",
    f"<noscript><p title='</noscript><img src=x onerror={RUN}>'>",
    f"<template><script>{RUN}</script></template><object data='javascript:{RUN}'></object><embed src=x>",
    f'```"><img src=x onerror={RUN}>\ncode\n```',
    f"```html\n<script>{RUN}</script><img src=x onerror={RUN}>\n```",
    f"`<img src=x onerror={RUN}>` | a |\n|-|\n| <img src=x onerror={RUN}> |",
    "<input name=composer data-testid=composer autofocus><form id=composer><input name=attributes></form>",
    "<!-- never closed <b>bold <i>italic <table><tr><td><ul><li>",
    "**never *closed `code [link](https://evil.example",
    "\u202eevil\u202c \u0000\u200b\ufeff e" + "\u0301" * 500,
]


async def nothing_happened(page: ChatPage) -> None:
    assert await page.evaluate("window.ran") is None
    await expect(page.body().locator(BAD)).to_have_count(0)
    links = await page.body().locator("a").evaluate_all("(links) => links.map(({ protocol }) => protocol)")
    assert set(links) <= {"https:", "http:", "mailto:"}


@pytest.mark.parametrize("number", range(len(SAMPLES)))
async def test_it_does_nothing(page: ChatPage, model: ModelServer, number: int) -> None:
    sample = SAMPLES[number]
    model.play([says(*sample)])
    await page.ask("Do your worst.")
    await nothing_happened(page)
    await page.reload()
    await page.has_ended(2)
    await nothing_happened(page)
    assert await page.by("composer").count() == 1


async def test_all_of_it_at_once(page: ChatPage, model: ModelServer) -> None:
    model.play([says(*[f"{sample}\n\n" for sample in SAMPLES])])
    await page.ask("All of it.")
    await nothing_happened(page)


async def test_titles_and_messages_are_text(page: ChatPage) -> None:
    await page.ask(f"<img src=x onerror='{RUN}'> <script>{RUN}</script>")
    await expect(page.by("session-title")).to_contain_text("<img src=x")
    await expect(page.session("<img src=x")).to_be_visible()
    assert await page.evaluate("window.ran") is None
    await expect(page.page.locator("main img")).to_have_count(0)


INJECTIONS = [
    f"document.body.innerHTML = \"<img src=x onerror='{RUN}'>\"",
    f"document.body.insertAdjacentHTML('beforeend', '<p onclick=\"{RUN}\">x</p>')",
    f"document.body.append(Object.assign(document.createElement('script'), {{ text: '{RUN}' }}))",
    f"setTimeout('{RUN}')",
]


@pytest.mark.parametrize("number", range(len(INJECTIONS)))
async def test_the_policy_would_stop_what_slips_through(page: ChatPage, watch: Watch, number: int) -> None:
    """Do from within the page's code what a mistake in it would do."""
    watch.expect("Trusted|Content Security Policy|policy violated")
    with pytest.raises(Error, match=r"Trusted|Content Security Policy"):
        await page.evaluate(f"() => {{ {INJECTIONS[number]} }}")
    assert await page.evaluate("window.ran") is None
    assert watch.complaints


async def test_the_policy_stops_what_is_loaded_from_elsewhere(page: ChatPage, watch: Watch) -> None:
    watch.expect("Content Security Policy|policy violated|evil.example|CORS")
    load = """() => { document.body.append(
        Object.assign(new Image(), { src: "https://evil.example/x.png" }),
        Object.assign(document.createElement("link"), { rel: "stylesheet", href: "https://evil.example/x.css" }),
        Object.assign(document.createElement("iframe"), { src: "https://evil.example/" })); }"""
    await page.evaluate(load)
    await page.evaluate("fetch('https://evil.example/').catch(() => null)")
    for directive in ("img-src", "style-src-elem", "frame-src", "connect-src"):
        await until(partial(watch.has_heard, f"policy violated: {directive}"))


# Milliseconds. A million characters without a place to break are laid out in one go: 2.1 to 2.7 s on two slow cores, of
# which rendering is less than half a second. A parser that takes the square of a text's length would take minutes.
LONGEST_TASK = 12_000

HEAVY = {
    "backticks": "`" * 1_000_000,
    "backticks and words": "`a ``b " * 60_000,
    "stars": "*a **b " * 60_000,
    "brackets": "[" * 200_000,
    "brackets and links": "[a](" * 60_000,
    "quotes": "> " * 50_000 + "deep",
    "lists": "\n".join(" " * 2 * depth + "- deep" for depth in range(1000)),
    "tags": "<b><i>" * 50_000,
    "a table": "| a " * 200 + "|\n" + "| - " * 200 + "|\n" + ("| b " * 200 + "|\n") * 500,
    "one line": "word " * 100_000,
    "one word": "w" * 500_000,
    "entities": "&amp;" * 100_000,
    "code": "```python\n" + "x = (1, 'two')  # three\n" * 20_000,
    "underscores": "_" * 300_000 + "a",
    "pipes": "|" * 300_000,
    "definitions": "\n".join(f"[{n}]: https://x.example/{n}" for n in range(20_000)),
}


@pytest.mark.parametrize("kind", HEAVY)
async def test_the_page_stays_usable(page: ChatPage, model: ModelServer, watch: Watch, kind: str) -> None:
    text = HEAVY[kind]
    model.play([says(*[text[at : at + 20_000] for at in range(0, len(text), 20_000)])])
    await page.evaluate(
        """() => { window.tasks = [0];
        new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map(({ duration }) => duration)))
            .observe({ type: "longtask" }); }"""
    )
    await page.send("Do your worst.")
    await page.has_ended(2, timeout=60)
    assert max(await page.evaluate("window.tasks")) < LONGEST_TASK
    begin = time.monotonic()
    await page.write("still here")
    await expect(page.by("send")).to_be_enabled()
    assert time.monotonic() - begin < 6
    begin = time.monotonic()
    await page.reload()
    await expect(page.messages()).to_have_count(2, timeout=12_000)
    await page.write("still here")
    assert time.monotonic() - begin < 12
