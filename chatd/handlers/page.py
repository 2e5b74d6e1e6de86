"""The web page and its files."""

from aiohttp import web

from chatd.errors import NotFound
from chatd.files import read_files, send_file

DOCS_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)


async def get_page(request: web.Request) -> web.Response:
    return send_file(request, read_files()["index.html"], {"Content-Security-Policy": POLICY})


async def get_docs(request: web.Request) -> web.Response:
    """Return the page that shows the API's description."""
    return send_file(request, read_files()["docs.html"], {"Content-Security-Policy": DOCS_POLICY})


async def get_file(request: web.Request) -> web.Response:
    """Return a file; a path is looked up among the names of those that there are, and opens nothing."""
    if (file := read_files().get(request.match_info["path"])) is None:
        raise NotFound
    return send_file(request, file)


async def get_icon(request: web.Request) -> web.Response:
    return send_file(request, read_files()["favicon.ico"])
