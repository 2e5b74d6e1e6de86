"""Where throw-away machines stand: room in memory for what they write, and a network that ends at its loopback."""

import asyncio
import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

CLONE_NEWNET = 0x40000000
NEEDED = ("systemd-nspawn", "nsenter", "unshare", "setpriv", "ip", "ps", "dh", "dpkg-buildpackage", "lintian", "nginx")
PACKAGES = "systemd-container, dbus, iproute2, procps, build-essential, debhelper, lintian, nginx-light, python3-venv"
TIMEOUT = 60.0  # seconds
POLL = 0.02
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
SET_UP = """
mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs "$1" &&
ip link set lo up &&
echo ready && exec sleep infinity
"""


def why_not() -> str | None:
    """Return why no machine can be started here, if so."""
    if os.geteuid() != 0:
        return "only root can start a systemd of its own"
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        return f"{', '.join(missing)} not found (Debian: {PACKAGES})"
    if not Path("/usr/lib/systemd/systemd").exists():
        return "this machine has no systemd that could be started"
    return None if has_overlay() else "this kernel has no overlay file system"


def has_overlay() -> bool:
    """Tell whether the kernel has overlay file systems; they may be in a module that nobody has needed yet."""
    if modprobe := shutil.which("modprobe"):
        subprocess.run((modprobe, "--quiet", "overlay"), check=False)
    return "\toverlay\n" in Path("/proc/filesystems").read_text()


async def run(*command: str, check: bool = True, timeout: float = TIMEOUT) -> str:
    """Run a command and return what it printed; raises AssertionError with that where it fails and `check` is set."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=ENVIRONMENT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    text = output.decode(errors="replace").strip()
    assert not check or process.returncode == 0, f"{' '.join(command)}: status {process.returncode}\n{text}"
    return text


class Hall:
    """A mount and a network namespace, held by a process that sleeps: they are gone when it is, however it ends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.numbers = itertools.count(1)

    async def open(self) -> None:
        self.holder = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--net", "--propagation=private"),
            *("sh", "-c", SET_UP, "sh", str(self.directory)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tests, which then close it
        )
        assert self.holder.stdout
        line = await asyncio.wait_for(self.holder.stdout.readline(), TIMEOUT)
        assert line == b"ready\n", line.decode()

    async def close(self) -> None:
        self.holder.kill()
        await self.holder.wait()

    @property
    def cgroups(self) -> Path:
        return Path(f"/proc/{self.holder.pid}/root/sys/fs/cgroup")

    def inside(self, *command: str) -> list[str]:
        """Return a command line that runs a command with the hall's mounts and network."""
        return ["nsenter", f"--target={self.holder.pid}", "--mount", "--net", "--", *command]

    @contextmanager
    def network(self) -> Iterator[None]:
        """Have the sockets and processes that this thread makes be in the hall's network."""
        with Path("/proc/self/ns/net").open() as own, Path(f"/proc/{self.holder.pid}/ns/net").open() as halls:
            enter_network(halls.fileno())
            try:
                yield
            finally:
                enter_network(own.fileno())


def enter_network(descriptor: int) -> None:
    """Move this thread to a network namespace (os.setns comes with Python 3.12)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


async def remove_cgroup(path: Path) -> None:
    """Kill what is in a cgroup, and remove it with those below it; it may be missing."""
    if not path.exists():
        return
    (path / "cgroup.kill").write_text("1")
    async with asyncio.timeout(TIMEOUT):
        while "populated 1" in (path / "cgroup.events").read_text():
            await asyncio.sleep(POLL)
    for directory, _, _ in os.walk(path, topdown=False):
        Path(directory).rmdir()


@asynccontextmanager
async def open_hall(directory: Path) -> AsyncIterator[Hall]:
    """Yield a hall; `directory` is to be empty, and is so afterwards."""
    hall = Hall(directory)
    await hall.open()
    try:
        yield hall
    finally:
        await hall.close()
