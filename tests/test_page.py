"""The page's files as they are sent, and what they are made of."""

import asyncio
import gzip
import json
import posixpath
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from chatd.files import CONTENT_TYPES, ROOT, File, read_files
from chatd.handlers.page import DOCS_POLICY, POLICY
from tests.chat_client import CHARACTER, Chat, raw
from tests.conftest import Start
from tests.token_provider import SECRET, bearer, token

MAX_WEIGHT = 150 << 10  # bytes over the wire
LOADED = (".css", ".html", ".ico", ".js", ".svg")
IMPORT = re.compile(
    r"""(?:^|[;\n}])\s*(?:(?:import|export)\b[^;"'()]*?\bfrom|import)\s*["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']"""
)
URL = re.compile(r"""url\(["']?(?!data:)([^"')]+)""")
PAGES = [("/", "index.html", POLICY), ("/docs", "docs.html", DOCS_POLICY)]
REFUSED = [
    "/web/../app.py",
    "/web/../../chatd/app.py",
    "/web/..%2fapp.py",
    "/web/%2e%2e/app.py",
    "/web/%2e%2e%2fapp.py",
    "/web/..%5capp.py",
    "/web//etc/passwd",
    "/web/%2fetc%2fpasswd",
    "/web/./index.html",
    "/web/index.html%00",
    "/web/index.html%00.js",
    "/web/INDEX.HTML",
    "/web/index.html/",
    "/web/vendor",
    "/web/app.py",
    "/web/file:///etc/passwd",
]


class Markup(HTMLParser):
    """What a page has in it: its elements, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def loaded(self) -> Iterator[str]:
        """Yield the URLs of what is loaded with the page."""
        for tag, attributes in self.elements:
            if (url := attributes.get("href" if tag == "link" else "src")) is not None:
                yield url


def page(name: str) -> Markup:
    return Markup(read_files()[name].body.decode())


def imported(name: str) -> list[str]:
    """Return what a file loads, as it says it."""
    text = read_files()[name].body.decode(errors="replace")
    if name.endswith(".css"):
        return URL.findall(text)
    return [static or dynamic for static, dynamic in IMPORT.findall(text)] if name.endswith(".js") else []


def resolve(name: str, specifier: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), specifier))


def weight(file: File) -> int:
    return min(len(file.body), len(file.compressed))


async def get(chat: Chat, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
    """Return status, headers and the body as it came."""
    options = {"headers": {name.replace("_", "-"): value for name, value in headers.items()}}
    request = chat.client.session.request(method, chat.client.make_url(path), **options, auto_decompress=False)
    async with request as response:
        return response.status, response.headers, await response.read()


async def test_every_file_is_sent_with_its_type(chat: Chat) -> None:
    for name, file in read_files().items():
        status, headers, body = await get(chat, f"/web/{name}", Accept_Encoding="identity")
        assert (status, body) == (200, file.body)
        assert headers["Content-Type"] == CONTENT_TYPES[Path(name).suffix]
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert CONTENT_TYPES[".js"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize(("path", "name", "policy"), PAGES)
async def test_a_page_has_a_policy_of_its_own(chat: Chat, path: str, name: str, policy: str) -> None:
    status, headers, body = await get(chat, path, Accept_Encoding="identity")
    assert (status, body) == (200, (ROOT / name).read_bytes())
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers.getall("Content-Security-Policy") == [policy]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(("path", "name", "policy"), PAGES)
async def test_a_page_that_is_kept_keeps_its_policy(chat: Chat, path: str, name: str, policy: str) -> None:
    tag = (await get(chat, path))[1]["ETag"]
    status, headers, body = await get(chat, path, If_None_Match=tag)
    assert (status, body) == (304, b""), name
    assert headers.getall("Content-Security-Policy") == [policy]
    assert headers["ETag"] == tag
    assert headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("given", ["{}", "W/{}", '"other", {}', "*"])
async def test_what_has_not_changed_is_not_sent_again(chat: Chat, given: str) -> None:
    tag = (await get(chat, "/favicon.ico"))[1]["ETag"]
    assert tag.startswith('"')
    assert (await get(chat, "/favicon.ico", If_None_Match=given.format(tag)))[0] == 304


@pytest.mark.parametrize("given", ['"other"', "", "no tag"])
async def test_what_has_changed_is(chat: Chat, given: str) -> None:
    assert (await get(chat, "/favicon.ico", If_None_Match=given))[0] == 200


@pytest.mark.parametrize("takes", ["gzip", "br, gzip;q=0.5", "deflate,GZIP; q=1"])
async def test_it_is_compressed_for_those_who_take_that(chat: Chat, takes: str) -> None:
    plain = await get(chat, "/", Accept_Encoding="identity")
    status, headers, body = await get(chat, "/", Accept_Encoding=takes)
    assert (status, headers["Content-Encoding"], headers["Vary"]) == (200, "gzip", "Accept-Encoding")
    assert gzip.decompress(body) == plain[2]
    assert headers["ETag"] != plain[1]["ETag"]
    assert "Content-Encoding" not in plain[1]
    assert plain[1]["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("takes", ["identity", "gzip;q=0", "gzip; q=0.000", "br", "gzipped"])
async def test_it_is_not_for_others(chat: Chat, takes: str) -> None:
    assert "Content-Encoding" not in (await get(chat, "/", Accept_Encoding=takes))[1]


@pytest.mark.parametrize("path", ["/", "/web/index.html", "/favicon.ico"])
async def test_head_tells_the_same_and_sends_nothing(chat: Chat, path: str) -> None:
    whole, head = await get(chat, path), await get(chat, path, "HEAD")
    assert head[0] == 200
    assert head[2] == b""
    for name in ("Content-Type", "Content-Length", "ETag", "Content-Security-Policy"):
        assert head[1][name] == whole[1][name]


@pytest.mark.parametrize("path", REFUSED)
async def test_nothing_else_is_sent(chat: Chat, path: str) -> None:
    answer = await raw(chat, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] in {b"400", b"404"}
    assert json.loads(body)["code"] in {"not_found", "invalid_request"}


async def test_strangers_get_the_page_and_nothing_more(start: Start) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET)
    for path in ("/", "/docs", "/web/index.html", "/favicon.ico"):
        assert (await get(chat, path))[0] == 200
    await chat.call("GET", "/web/nothing.js", 404)
    for path in ("/agent/me", "/webs", "/agent/sessions"):
        await chat.call("GET", path, 401)
    answer = await raw(chat, b"GET /web/../agent/sessions HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b'"code":"not_found"' in answer


async def test_without_tokens_no_other_host_gets_it(chat: Chat) -> None:
    for path in ("/", "/web/index.html", "/favicon.ico"):
        assert (await get(chat, path, Host="evil.example"))[0] == 403
        assert (await get(chat, path, X_Forwarded_For="192.0.2.1"))[0] == 403


async def test_me(start: Start, chat: Chat) -> None:
    nobody = {"owner": "anonymous", "characters": None, "admin": False, "expires_at": None}
    assert await chat.call("GET", "/agent/me") == nobody
    guarded = await start(auth="jwt", jwt_secret=SECRET)
    given = token("alice", exp=4102444800.5, character_ids=[9, CHARACTER])
    me = await guarded.call("GET", "/agent/me", headers=bearer(given))
    expires = "2100-01-01T00:00:00.500000Z"
    assert me == {"owner": "alice", "characters": [CHARACTER, 9], "admin": False, "expires_at": expires}
    admin = await guarded.call("GET", "/agent/me", headers=bearer(token("root", role="admin")))
    assert admin["admin"] is True
    assert admin["characters"] is None
    strict = await start(auth="jwt", jwt_secret=SECRET, require_character=True)
    assert (await strict.call("GET", "/agent/me", headers=bearer(token())))["characters"] == []


def test_all_that_a_page_can_load_is_light() -> None:
    weights = {name: weight(file) for name, file in read_files().items() if name.endswith(LOADED)}
    print(f"{sum(weights.values())} bytes")
    assert sum(weights.values()) <= MAX_WEIGHT, weights


@pytest.mark.parametrize("name", [name for _, name, _ in PAGES])
def test_a_page_loads_by_relative_urls(name: str) -> None:
    assert all(url.startswith("web/") and url.removeprefix("web/") in read_files() for url in page(name).loaded())


def test_every_import_is_a_file() -> None:
    for name in read_files():
        for specifier in imported(name):
            assert specifier.startswith(("./", "../")) or name.endswith(".css"), f"{name}: {specifier}"
            assert resolve(name, specifier) in read_files(), f"{name}: {specifier}"


def test_imports_are_found() -> None:
    text = """import{a}from"./a.js";import b, { c } from './b.js'
import "./c.js"
export * from "./d.js";
}export { x }
from "./e.js"; const z = await import("./f.js"); k="export from import", l="import x"
"""
    found = [static or dynamic for static, dynamic in IMPORT.findall(text)]
    assert found == ["./a.js", "./b.js", "./c.js", "./d.js", "./e.js", "./f.js"]


@pytest.mark.parametrize("name", [name for _, name, _ in PAGES])
def test_nothing_of_a_page_is_inline(name: str) -> None:
    for tag, attributes in page(name).elements:
        assert tag != "style"
        assert tag != "script" or (attributes["src"] and attributes["type"] == "module")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


def test_what_others_made_is_listed() -> None:
    """Each file of chatd/web/vendor stands in its README with a version and a licence."""
    vendored = {name for name in read_files() if name.startswith("vendor/") and name.endswith((".js", ".css"))}
    rows = [line for line in (ROOT / "vendor/README.md").read_text().splitlines() if line.startswith("|")]
    for name in vendored:
        listed = [row for row in rows if f"`{name.removeprefix('vendor/')}`" in row]
        assert any(re.search(r"\d+\.\d+\.\d+", row) and re.search(r"MIT|BSD|Apache|MPL|ISC", row) for row in listed), (
            name
        )
    assert vendored


async def test_an_installed_chatd_has_the_files(tmp_path: Path) -> None:
    source = Path(__file__).parent.parent
    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
    for name in ("chatd", "sql"):
        shutil.copytree(source / name, tmp_path / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(source / name, tmp_path)
    command = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "out", ".")
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    with zipfile.ZipFile(next((tmp_path / "out").glob("*.whl"))) as wheel:
        packed = {name.removeprefix("chatd/web/") for name in wheel.namelist() if name.startswith("chatd/web/")}
    assert read_files().keys() <= packed
