"""Programs under measurement: started, waited for, weighed, ended."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT = 90.0  # seconds; some import for long
STOP_TIMEOUT = 10.0
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def program(
    command: Sequence[str | Path], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[int]:
    """Run a program until it listens on a port, and yield its pid."""
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *map(str, command), stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=environment
        )
    try:
        await wait_for_port(process, port, log)
        yield process.pid
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()


async def wait_for_port(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.returncode is None:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.01)
    raise RuntimeError(f"it does not start: see {log}\n" + log.read_text(errors="replace")[-2000:])


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    pids = [pid]
    for one in pids:
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
    return pids


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used: CPU seconds (of those that ended, too), resident bytes now."""

    cpu: float
    memory: int


def usage(pid: int) -> Usage:
    cpu, memory = 0, 0
    for one in family(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(") ")[2].split()
            cpu += sum(map(int, fields[11:15]))
            memory += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * PAGE
    return Usage(cpu / TICKS, memory)
