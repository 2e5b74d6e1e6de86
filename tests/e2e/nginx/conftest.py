"""Debian's nginx and the current one, with the site file that is deployed."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from aiohttp import web

from tests.e2e.nginx.peer import Peer
from tests.e2e.nginx.site import NOTHING, PROGRAMS, Site, deployed


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Path:
    return PROGRAMS[request.param]


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    peer = Peer()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", peer.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    for name in ("http.sock", "second.sock"):
        await web.UnixSite(runner, tmp_path / name, backlog=1024).start()
    yield peer
    await runner.cleanup()


Deploy = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def deploy(program: Path, peer: Peer, tmp_path: Path) -> Deploy:
    del peer  # named for the order alone
    return lambda changes=NOTHING, **options: deployed(
        tmp_path / "nginx", f"unix:{tmp_path}/http.sock", program, changes, **options
    )
