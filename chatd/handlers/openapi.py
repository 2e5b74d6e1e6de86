"""The API's description."""

import importlib

from aiohttp import web

from chatd.keys import CONFIG


async def get_document(request: web.Request) -> web.Response:
    """Return the document; what makes it is imported when it is first asked for, which takes some 25 ms, once."""
    description = importlib.import_module("chatd.openapi.document")
    body = description.build_document(request.app[CONFIG].auth)
    return web.Response(body=body, content_type="application/json", charset="utf-8")
