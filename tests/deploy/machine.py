"""A throw-away machine: this one's Debian with a real systemd as PID 1, on an overlay of its root.

Nothing is downloaded, nothing is written here, and it boots in a second: a container of systemd-nspawn in a `Hall`.
"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.deploy.hall import ENVIRONMENT, TIMEOUT, Hall, remove_cgroup, run

BOOT_TIMEOUT = 60.0  # seconds
REBOOT = 133  # the status with which systemd-nspawn asks to be started again
POLL = 0.05
MAKE = """
mkdir "$2" "$2.work" "$3" && mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$2.work" "$3"
"""
# What is enabled on this machine is not what is tested; nor is what may keep services from being started on it.
CLEAN = """
rm -f "$1"/etc/systemd/system/*.wants/* "$1/usr/sbin/policy-rc.d" && : > "$1/etc/machine-id"
"""
# The container gets a cgroup of its own: there need be no systemd here to ask for one. It also gets its own processes,
# all of which the kernel kills with the first one, and that one with the tests.
NSPAWN = """
mkdir -p "$1" && echo $$ > "$1/cgroup.procs" && shift &&
exec setpriv --pdeathsig=KILL unshare --pid --fork --kill-child=KILL --mount-proc systemd-nspawn "$@"
"""
INIT = "payload/init.scope/cgroup.procs"  # below the container's cgroup: its PID 1
OPTIONS = ("--boot", "--register=no", "--keep-unit", "--link-journal=no", "--notify-ready=yes", "--console=pipe")
OWN = ("--resolv-conf=off", "--timezone=off")  # files that are left as they are


class Machine:
    """A container; `upper` holds what is written in it, on which others can be based."""

    def __init__(self, hall: Hall, base: Sequence[str] = (), binds: Sequence[str] = ()) -> None:
        name = f"chatd-test-{os.getpid()}-{next(hall.numbers)}"
        self.hall, self.base, self.binds, self.name = hall, base, binds, name
        self.upper, self.root = str(hall.directory / name), str(hall.directory / f"{name}.root")
        self.leader = 0  # the pid of its PID 1
        self.process: asyncio.subprocess.Process | None = None

    async def make(self) -> None:
        """Make its root; it is switched off then."""
        lower = ":".join([*self.base, "/"])
        await run(*self.hall.inside("sh", "-c", MAKE, "sh", lower, self.upper, self.root))
        if not self.base:
            await run(*self.hall.inside("sh", "-c", CLEAN, "sh", self.root))

    async def boot(self) -> None:
        """Start it and return when it is up."""
        notify = f"{self.hall.directory}.notify-{self.name}"  # outside, where nothing is mounted
        binds = [f"--bind-ro={bind}" for bind in self.binds]
        options = [f"--directory={self.root}", f"--machine={self.name}", *OPTIONS, *OWN, *binds]
        with listen_for_notices(Path(notify)) as notices:
            self.process = await asyncio.create_subprocess_exec(
                *self.hall.inside("sh", "-c", NSPAWN, "sh", f"/sys/fs/cgroup/{self.name}", *options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env=ENVIRONMENT | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "NOTIFY_SOCKET": notify},
                start_new_session=True,
            )
            async with asyncio.timeout(BOOT_TIMEOUT):
                await self._wait_until_up(notices)

    async def _wait_until_up(self, notices: socket.socket) -> None:
        notice = b""
        while b"READY=1" not in notice:
            notice = await asyncio.get_running_loop().sock_recv(notices, 4096)
        self.leader = int((self.hall.cgroups / self.name / INIT).read_text())

    async def run(self, *command: str, check: bool = True, timeout: float = TIMEOUT) -> str:
        """Run a command in it as root and return what it printed."""
        inside = ("nsenter", f"--target={self.leader}", "--all", "--", *command)
        return await run(*inside, check=check, timeout=timeout)

    async def until(self, script: str, seconds: float = 20) -> None:
        """Wait until a shell command succeeds in it."""
        async with asyncio.timeout(seconds):
            while await self.sh(f"({script}) >/dev/null 2>&1 || echo no"):
                await asyncio.sleep(POLL)

    async def sh(self, script: str, check: bool = True, timeout: float = TIMEOUT) -> str:
        return await self.run("sh", "-ec", script, check=check, timeout=timeout)

    async def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return await self.run("systemctl", "show", unit, f"--property={name}", "--value")

    async def journal(self, unit: str) -> list[dict[str, Any]]:
        """Return what is logged by and about a unit since the machine was made."""
        await self.run("journalctl", "--sync")
        lines = await self.run("journalctl", f"--unit={unit}", "--output=json", "--all")
        return [json.loads(line) for line in lines.splitlines() if line.startswith("{")]

    def path(self, inside: str) -> Path:
        """Return where a file of it can be read and written from outside."""
        return Path(f"/proc/{self.leader}/root{inside}")

    async def reboot(self) -> None:
        await self.run("systemctl", "reboot")
        assert await self._end() == REBOOT
        await self.boot()

    async def power_off(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.leader, signal.SIGRTMIN + 4)
        await self._end()

    async def _end(self) -> int:
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), BOOT_TIMEOUT)

    async def remove(self) -> None:
        """Take it away, whatever state it is in."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await remove_cgroup(self.hall.cgroups / self.name)
        await run(*self.hall.inside("umount", "--lazy", self.root))


@contextmanager
def listen_for_notices(path: Path) -> Iterator[socket.socket]:
    """Yield what sd_notify(3) writes to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as notices:
        notices.bind(str(path))
        try:
            yield notices
        finally:
            path.unlink()


@asynccontextmanager
async def booted(hall: Hall, base: Sequence[str] = (), binds: Sequence[str] = ()) -> AsyncIterator[Machine]:
    """Yield a machine that is up."""
    machine = Machine(hall, base, binds)
    await machine.make()
    try:
        await machine.boot()
        yield machine
    finally:
        await machine.remove()
