"""chatd as a process of its own, to be killed."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO

import aiohttp

from tests.chat_client import Chat

PASS_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class ServerProcess:
    """`chatd serve`, on a port that it chooses, or on a socket that is passed to it as systemd does it."""

    def __init__(self, passed: socket.socket | None = None, **environment: str) -> None:
        self.passed = passed
        self.environment = os.environ | {"CHATD_PORT": "0", "CHATD_LOG_FORMAT": "text"} | environment
        self.log = ""
        self.stdout: IO[bytes] | None = None  # a file, where it is to be looked at

    async def start(self) -> str:
        """Return the URL on which it listens, or the path of its Unix socket."""
        self.process = await asyncio.create_subprocess_exec(
            *self.command(),
            env=self.environment,
            stdout=self.stdout,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[self.passed.fileno()] if self.passed else (),
        )
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            async for line in self.process.stderr:
                self.log += line.decode()
                if match := re.search(r"listening on ([\w.:/-]+)", line.decode()):
                    self.reading = asyncio.create_task(self._read(self.process.stderr))
                    return match[1]
        raise AssertionError(f"chatd did not start:\n{self.log}")

    def command(self) -> list[str]:
        serve = [sys.executable, "-m", "chatd", "serve"]
        if self.passed is None:
            return serve
        return [sys.executable, "-c", PASS_SOCKET, str(self.passed.fileno()), *serve]

    async def _read(self, stderr: asyncio.StreamReader) -> None:
        async for line in stderr:
            self.log += line.decode()

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        status = await asyncio.wait_for(self.process.wait(), 20)
        await self.reading
        return status

    async def kill(self) -> None:
        """End it, whatever a test has left it in."""
        if hasattr(self, "process"):
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def serving(server: ServerProcess) -> AsyncIterator[Chat]:
    """Start the server and yield a client of it; the server may be ended inside."""
    url = await server.start()
    try:
        async with aiohttp.ClientSession(url) as session:
            yield Chat(session)
    finally:
        if server.process.returncode is None:
            await server.end(signal.SIGTERM)


async def run(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command and return its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chatd", *arguments),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()
