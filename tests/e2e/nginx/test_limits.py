"""What one client can ask of nginx, and for how long."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from chatd.requests import MAX_BODY
from tests.chat_client import until
from tests.e2e.nginx.conftest import Deploy
from tests.e2e.nginx.peer import STRANGER, Peer, refused, visiting
from tests.e2e.nginx.site import Site


async def test_a_body_has_its_limit(deploy: Deploy, peer: Peer) -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        yield b"x" * size

    async with deploy() as site, visiting(site) as session:
        async with session.post("/agent/chat", data=b"x" * MAX_BODY) as response:
            assert (await response.json())["size"] == MAX_BODY
        for data in (b"x" * (MAX_BODY + 1), chunks(MAX_BODY + 1)):
            async with session.post("/agent/chat", data=data) as response:
                await refused(response, 413, "too_large")
        assert "temporary file" not in site.read("error.log")
    assert len(peer.requests) == 1


async def test_one_address_has_so_many_connections(deploy: Deploy, peer: Peer) -> None:
    async with deploy() as site, visiting(site, STRANGER) as stranger, visiting(site) as known:
        waiting = [asyncio.create_task(status_of(stranger, "/web/waits")) for _ in range(100)]
        waiting += [asyncio.create_task(status_of(known, "/web/waits")) for _ in range(110)]
        await until(lambda: len(peer.requests) == 210, 30)
        async with stranger.get("/") as response:
            await refused(response, 429, "rate_limited")
        assert await status_of(known, "/") == 200
        peer.release.set()
        assert set(await asyncio.gather(*waiting)) == {200}
        assert await status_of(stranger, "/") == 200


async def test_nginx_has_no_connection_left(deploy: Deploy, peer: Peer) -> None:
    """Of 17 one is left for a client then, and none to chatd; of 16 none would be, and the client be dropped."""
    async with deploy(connections=17) as site, visiting(site) as session:
        waiting: list[asyncio.Task[int]] = []
        while len(peer.requests) == len(waiting):
            waiting.append(asyncio.create_task(status_of(session, "/web/waits")))
            await until(lambda: len(peer.requests) == len(waiting) or waiting[-1].done(), 10)
        async with session.get("/agent/sessions") as response:
            await refused(response, 503, "unavailable")
        peer.release.set()
        assert sorted(await asyncio.gather(*waiting)) == [200] * (len(waiting) - 1) + [503]


async def status_of(session: aiohttp.ClientSession, path: str) -> int:
    async with session.get(path) as response:
        await response.read()
        return response.status


async def test_one_address_asks_so_often(deploy: Deploy, peer: Peer) -> None:
    """A hundred at once and fifty a second; the page's files are not counted, nor is who is known."""
    async with deploy() as site, visiting(site, STRANGER, 20) as stranger, visiting(site, limit=20) as known:
        begin = time.monotonic()
        responses = await asyncio.gather(*(stranger.get("/agent/sessions") for _ in range(400)))
        refusals = [response for response in responses if response.status != 200]
        assert 100 <= len(peer.requests) <= 101 + 50 * (time.monotonic() - begin)
        for response in refusals:
            await refused(response, 429, "rate_limited")
        for session, path in ((stranger, "/web/app.js"), (known, "/agent/sessions")):
            assert set(await asyncio.gather(*(status_of(session, path) for _ in range(200)))) == {200}
    assert len(refusals) > 50


POST = b"POST /agent/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", POST], ids=["nothing", "head", "body"])
async def test_slow_clients_never_reach_chatd(deploy: Deploy, peer: Peer, start: bytes) -> None:
    """The times are a twentieth of what they are."""
    times = {f"client_{part}_timeout 10s": f"client_{part}_timeout 500ms" for part in ("header", "body")}
    async with deploy(times) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(start)
        begin = time.monotonic()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert 0.3 < time.monotonic() - begin < 3
        writer.close()
    assert peer.requests == []


async def test_a_client_that_does_not_read(deploy: Deploy, peer: Peer) -> None:
    """It is dropped, and others do not notice it. The times are a twentieth of what they are."""
    async with deploy({"send_timeout 30s": "send_timeout 1500ms"}) as site, visiting(site) as session:
        deaf = [await start_to_flood(site) for _ in range(5)]
        await until(lambda: peer.flooding == 5, 30)
        delays = []
        while peer.flooding:
            begin = time.monotonic()
            assert await status_of(session, "/web/app.js") == 200
            delays.append(time.monotonic() - begin)
            await asyncio.sleep(0.02)
        assert sorted(delays)[len(delays) // 2] < 0.1
        for sock in deaf:
            with pytest.raises(ConnectionResetError), sock:
                while sock.recv(1 << 20):
                    pass


async def start_to_flood(site: Site) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop: Any = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", site.port))
    await loop.sock_sendall(sock, b"GET /web/floods HTTP/1.1\r\nHost: x\r\n\r\n")
    return sock
