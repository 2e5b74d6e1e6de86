"""The page's files, from chatd/web: read once, held in memory, compressed when they are first asked for."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from aiohttp import hdrs, web

ROOT = Path(__file__).parent / "web"
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class File:
    """A file as it is sent."""

    body: bytes
    content_type: str

    @cached_property
    def compressed(self) -> bytes:
        return gzip.compress(self.body, 9, mtime=0)

    @cached_property
    def tag(self) -> str:
        return hashlib.sha256(self.body).hexdigest()[:32]


@cache
def read_files() -> Mapping[str, File]:
    """Return every file that may be sent, by its path within chatd/web."""
    paths = [path for path in sorted(ROOT.rglob("*")) if path.suffix in CONTENT_TYPES and path.is_file()]
    return {
        name: File(path.read_bytes(), CONTENT_TYPES[path.suffix])
        for path in paths
        if not is_hidden(name := path.relative_to(ROOT).as_posix())
    }


def is_hidden(name: str) -> bool:
    """Tell what lies beside the page's files but is none: a package's own tests and what they have installed."""
    return any(part.startswith(".") or part in {"node_modules", "test"} for part in name.split("/"))


def send_file(request: web.Request, file: File, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return the response: compressed where that is taken, or 304 for those who have the file.

    A 304 says all of the headers, too: a browser puts them in place of those that it kept.
    """
    compressed = takes_gzip(request) and len(file.compressed) < len(file.body)
    tag = f"{file.tag}-gzip" if compressed else file.tag
    answer = {**(headers or {}), hdrs.CACHE_CONTROL: "no-cache", hdrs.VARY: hdrs.ACCEPT_ENCODING, hdrs.ETAG: f'"{tag}"'}
    if any(given.value in {tag, "*"} for given in request.if_none_match or ()):
        return web.Response(status=304, headers=answer)
    answer[hdrs.CONTENT_TYPE] = file.content_type
    if compressed:
        answer[hdrs.CONTENT_ENCODING] = "gzip"
    return web.Response(body=file.compressed if compressed else file.body, headers=answer)


def takes_gzip(request: web.Request) -> bool:
    """Tell whether Accept-Encoding names gzip, and not to refuse it (`gzip;q=0`)."""
    offered = request.headers.get(hdrs.ACCEPT_ENCODING, "").lower().replace(" ", "").split(",")
    weights = [parameters for name, _, parameters in (coding.partition(";") for coding in offered) if name == "gzip"]
    return any(weight.strip("q=0.") or not weight for weight in weights)
