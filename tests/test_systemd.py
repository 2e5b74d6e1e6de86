"""What systemd does to a service, and hears from it."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from chatd.config import read_config
from chatd.systemd import keep_notifying, notify
from tests.chat_client import Chat
from tests.model_server import ModelServer
from tests.server_process import ServerProcess, run


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        yield sock


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    """Yield the socket on which a service is heard, as `notify` in the test's directory."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def read(heard: socket.socket) -> list[str]:
    lines: list[str] = []
    while True:
        try:
            lines += heard.recv(1000).decode().split("\n")
        except BlockingIOError:
            return lines


async def test_callers_wait_while_the_process_restarts(
    tmp_path: Path, model: ModelServer, listening: socket.socket, heard: socket.socket
) -> None:
    server = ServerProcess(
        listening,
        CHATD_DATA_DIR=str(tmp_path / "data"),
        CHATD_SOCKET=str(tmp_path / "chatd.sock"),  # the socket that is passed goes before
        ANTHROPIC_BASE_URL=model.url,
        NOTIFY_SOCKET=str(tmp_path / "notify"),
        WATCHDOG_USEC="600000",
    )
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    for number in (signal.SIGTERM, signal.SIGKILL):
        assert await server.start() == url
        await asyncio.sleep(0.5)
        await server.end(number)
        before = read(heard)
        assert before[0] == "READY=1"
        assert "WATCHDOG=1" in before
        assert "STATUS=0 turns running, 0 readers" in before
        assert ("STOPPING=1" in before) == (number == signal.SIGTERM)
    async with aiohttp.ClientSession(url) as client:
        posting = asyncio.create_task(Chat(client).post("hi"))
        await asyncio.sleep(0.2)  # it waits in the socket's backlog
        await server.start()
        assert (await posting)["message"]["content"] == "Hello, world."
        async with asyncio.timeout(5):
            while "READY=1" not in read(heard):
                await asyncio.sleep(0.01)
    await server.end(signal.SIGTERM)


async def test_a_socket_that_the_world_can_reach_is_refused(tmp_path: Path, model: ModelServer) -> None:
    with socket.create_server(("0.0.0.0", 0)) as sock:
        server = ServerProcess(sock, CHATD_DATA_DIR=str(tmp_path), ANTHROPIC_BASE_URL=model.url)
        with pytest.raises(AssertionError, match="CHATD_ALLOW_ANONYMOUS"):
            await server.start()
        assert await server.process.wait() == 2


async def test_what_is_meant_for_another_process_is_not_taken(tmp_path: Path) -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}
    config = read_config(environ)
    assert (config.listen_fds, config.watchdog) == (0, None)
    config = read_config(environ | {"LISTEN_PID": str(os.getpid()), "WATCHDOG_PID": str(os.getpid())})
    assert (config.listen_fds, config.watchdog) == (1, 5.0)
    status, output = await run("migrate", DATABASE_URL="postgresql://127.0.0.1:9/x", LISTEN_FDS="1", LISTEN_PID="1")
    assert status == 1
    assert "can't be reached" in output


async def test_the_watchdog_is_not_fed_while_the_loop_is_late(tmp_path: Path, heard: socket.socket) -> None:
    task = asyncio.create_task(keep_notifying(str(tmp_path / "notify"), 3, lambda: "fine"))
    await asyncio.sleep(1.5)
    assert "WATCHDOG=1" in read(heard)
    time.sleep(2)  # noqa: ASYNC251 - the loop is blocked, which is the point
    await asyncio.sleep(0.1)
    assert read(heard) == ["STATUS=fine"]
    await asyncio.sleep(1.5)
    assert "WATCHDOG=1" in read(heard)
    task.cancel()


def test_nobody_listens(tmp_path: Path) -> None:
    notify(None, "READY=1")
    notify(str(tmp_path / "nobody"), "READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0chatd-test-{os.getpid()}")
        notify(f"@chatd-test-{os.getpid()}", "READY=1")
        assert sock.recv(100) == b"READY=1"
