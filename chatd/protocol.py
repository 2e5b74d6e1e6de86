"""The last of aiohttp's own answers made problem documents: to what is no HTTP, which no middleware gets to see."""

import secrets

from aiohttp import web

from chatd.errors import HTTP_ERRORS, ChatdError, InvalidRequest, from_http, problem


class Protocol(web.RequestHandler):
    """Answers a connection's requests."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Log an error and answer it, without what aiohttp tells of the request; the connection is closed."""
        super().handle_error(request, status, exc, message)
        error = ChatdError() if status >= 500 else HTTP_ERRORS.get(status, InvalidRequest)()
        response = problem(error)
        response.headers["X-Request-ID"] = secrets.token_hex(16)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response; an error that came before the middlewares (an expectation that nobody has) is one, too."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = from_http(resp)
        return await super().finish_response(request, resp, start_time)


class Server(web.Server):
    """Makes the protocol of each connection; aiohttp has no hook for which one."""

    def __call__(self) -> Protocol:
        return Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = Server  # it is made deep inside, of a class that is named there
        return server
