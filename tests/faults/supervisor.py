"""A stand-in for systemd: holds the listening socket, hears the notifications, and starts again what ends."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

import aiohttp

SERVE = (sys.executable, "-m", "chatd", "serve")
ACTIVATE = (sys.executable, "-I", "-S", str(Path(__file__).with_name("activate.py")))
BACKLOG = 1024
RESTART_DELAY = 0.05
STOP_TIMEOUT = 30.0
LOG_LINES = 5000
MAX_LINE = 1 << 20
MAX_TRACEBACKS = 20  # of which more than a line is kept


class Supervisor:
    """Keeps one process running, on a port that stays the same whoever listens.

    With `pass_socket` the socket is the supervisor's, as with socket activation: a connection waits where no process
    is there to accept it. Otherwise the process binds the port itself, and connections are refused meanwhile.
    """

    process: asyncio.subprocess.Process
    keeper: asyncio.Task[None]

    def __init__(
        self,
        directory: Path,
        *,
        pass_socket: bool = True,
        listening: socket.socket | None = None,
        command: Sequence[str] = SERVE,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.command = directory, command
        self.socket = share(listening) if listening else socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port: int = self.socket.getsockname()[1]
        if not pass_socket:
            self.socket.close()
        self.notify_path = directory / "notify"
        own = {
            "CHATD_DATA_DIR": str(directory),
            "CHATD_PORT": str(self.port),
            "CHATD_LOG_FORMAT": "text",
            "CHATD_RETRY_FACTOR": "0.05",
            "ANTHROPIC_API_KEY": "sk-canary-key",
            "NOTIFY_SOCKET": str(self.notify_path),
        }
        self.environment = os.environ | own | dict(environment)
        self.starts: list[float] = []  # by the monotonic clock
        self.exits: list[int] = []  # statuses
        self.notifications: list[tuple[float, str]] = []
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.tracebacks: list[str] = []  # each with the line before it
        self.restarting = True
        self.changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return len(self.exits) < len(self.starts)

    async def start(self) -> None:
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.setblocking(False)
        self.notify.bind(str(self.notify_path))
        asyncio.get_running_loop().add_reader(self.notify, self._hear)
        await self._launch()
        self.keeper = asyncio.create_task(self._keep())

    async def _launch(self) -> None:
        passed = self.socket.fileno() >= 0
        launcher = (*ACTIVATE, str(self.socket.fileno())) if passed else ()
        self.starts.append(time.monotonic())
        self.process = await asyncio.create_subprocess_exec(
            *launcher,
            *self.command,
            env=self.environment,
            pass_fds=(self.socket.fileno(),) if passed else (),
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE,
        )

    async def _keep(self) -> None:
        while True:
            await self._read_log()
            self.exits.append(await self.process.wait())
            if not self.restarting:
                return
            await asyncio.sleep(RESTART_DELAY)
            await self._launch()

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        with (self.directory / "log").open("a", encoding="utf-8") as file:  # which a test that fails leaves
            await self._keep_lines(self.process.stderr, file)

    async def _keep_lines(self, stderr: asyncio.StreamReader, file: TextIO) -> None:
        async for line in stderr:
            text = line.decode(errors="replace").rstrip()
            if "Traceback" in text:
                self.tracebacks.append("\n".join([*self.log][-1:]))
            if self.tracebacks and len(self.tracebacks) <= MAX_TRACEBACKS and not text[:1].isdigit():
                self.tracebacks[-1] += f"\n{text}"
            self.log.append(text)
            print(text, file=file, flush=True)

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            while True:
                message = self.notify.recv(4096).decode()
                self.notifications += [(time.monotonic(), line) for line in message.splitlines()]

    def heard(self, line: str, since: float = 0.0) -> bool:
        """Tell whether the process has notified this since a moment."""
        return any(text == line for at, text in self.notifications if at >= since)

    async def kill(self) -> None:
        """End the process with no chance to do anything; the next one starts soon."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> int:
        """Ask the process to end, and return its status; the next one starts soon."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        process = self.process
        process.send_signal(number)
        return await asyncio.wait_for(process.wait(), STOP_TIMEOUT)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def wait_ready(self, seconds: float = 30.0) -> None:
        """Wait until it serves; raises AssertionError with the log's end."""
        try:
            async with asyncio.timeout(seconds), aiohttp.ClientSession(self.url) as session:
                while not await is_ready(session):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError("not ready:\n" + "\n".join([*self.log][-50:])) from None

    async def stop(self) -> None:
        """End the process for good, the frozen one too, and let go of the port."""
        self.restarting = False
        while not self.keeper.done():  # the next one may be about to be started
            if self.is_running and self.process.returncode is None:
                self.thaw()
                try:
                    await self.terminate()
                except TimeoutError:
                    await self.kill()
            await asyncio.wait([self.keeper], timeout=0.1)
        await self.keeper
        asyncio.get_running_loop().remove_reader(self.notify)
        self.notify.close()
        self.socket.close()
        self.notify_path.unlink()


def share(listening: socket.socket) -> socket.socket:
    """Return another handle of a socket; socket.dup would make it blocking, for the processes that have it, too."""
    return socket.socket(fileno=os.dup(listening.fileno()))


async def is_ready(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/readyz", timeout=aiohttp.ClientTimeout(5)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


@asynccontextmanager
async def supervised(supervisor: Supervisor) -> AsyncIterator[Supervisor]:
    """Start it, yield it when it is ready, and stop it."""
    await supervisor.start()
    try:
        await supervisor.wait_ready()
        yield supervisor
    finally:
        await supervisor.stop()
