"""The embedded PostgreSQL's directory: which process it belongs to, and where the socket lies."""

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

from chatd.errors import ConfigError, StartError

LOCK = "postgres.lock"
SOCKET = ".s.PGSQL.5432"
MAX_SOCKET_PATH = 107  # bytes, sockaddr_un
OWNER_TIMEOUT = 2.0  # for one that was just killed to be gone
POLL = 0.02


def find_running(directory: Path) -> str | None:
    """Return a DSN of the PostgreSQL that another process runs on `directory`, None where there is none.

    Raises StartError where its sockets lie in a place that anyone may have made.
    """
    directory = directory.resolve()
    if not is_owned(directory):
        return None
    place, owner = place_sockets(directory), directory.stat().st_uid
    if place != directory and not is_private(place, {0, owner}):
        raise StartError(f"{place} is not a private directory of the user that {directory} belongs to")
    return dsn_of(place)


def is_owned(directory: Path) -> bool:
    try:
        with (directory / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def refuse_root(directory: Path) -> None:
    """Raise ConfigError where root would open another user's database, or make one that this user could not open."""
    found = next((place for place in (directory, directory.parent) if place.exists()), None)
    if os.geteuid() != 0 or found is None or found.stat().st_uid == 0:
        return
    try:
        owner = found.owner()
    except KeyError:  # a user without a name
        owner = str(found.stat().st_uid)
    raise ConfigError(
        f"{found} belongs to {owner}, and root can't open the database there: "
        f"use `chatd-admin`, or `runuser -u {owner} -- chatd`"
    )


@asynccontextmanager
async def own(directory: Path) -> AsyncIterator[None]:
    """Hold the directory's lock: the kernel lets go of it when the process ends, soon after a kill."""
    with (directory / LOCK).open("w") as file:
        for _ in range(int(OWNER_TIMEOUT / POLL)):
            if try_lock(file):
                yield
                return
            await asyncio.sleep(POLL)
    raise StartError(f"another chatd runs on {directory}: stop it, or set CHATD_DATA_DIR or DATABASE_URL")


def try_lock(file: IO[str]) -> bool:
    """Take the lock of an open file, if nobody has it; whoever inherits the file has it, too, until all closed it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_pid(data: Path) -> int:
    """Return the process that a cluster's lock file names, 0 where there is none."""
    file = data / "postmaster.pid"
    first = file.read_text().partition("\n")[0].strip() if file.exists() else ""
    return int(first) if first.isdecimal() else 0


def is_alive(pid: int, data: Path) -> bool:
    """Tell whether this process may be a postmaster of this cluster: one of this user that is not seen elsewhere."""
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):  # gone, or another user's
        return False
    return pid > 1 and stands_in(pid, data) is not False  # 1 can't always be looked at, and is none


def stands_in(pid: int, data: Path) -> bool | None:
    """Tell whether a process that is no zombie works in a directory; None where it can't be looked at.

    So it is with all that run outside where a service has users of its own (systemd's PrivateUsers).
    """
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
            return False
        return Path(f"/proc/{pid}/cwd").samefile(data)
    except OSError:
        return None


def sync_directory(path: Path) -> None:
    """Have what was renamed in a directory outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place_sockets(directory: Path) -> Path:
    """Return the data directory itself, or one in /tmp where its path can't be a socket's or stand in a DSN.

    That one is named for the data directory and its user: a killed owner's is used again, and root finds it.
    """
    if re.fullmatch(r"[\w/.-]+", str(directory), re.ASCII) and len(f"{directory}/{SOCKET}") <= MAX_SOCKET_PATH:
        return directory
    return Path(f"/tmp/chatd-{directory.stat().st_uid}-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}")


@contextmanager
def socket_directory(directory: Path) -> Iterator[Path]:
    """Yield the place of the sockets; one that is not the data directory is there as long as the block runs."""
    place = place_sockets(directory)
    if place == directory:
        yield place
        return
    place.mkdir(mode=0o700, exist_ok=True)
    if not is_private(place, {os.geteuid()}):
        raise StartError(f"{place} is not a private directory of this user: remove it")
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def is_private(place: Path, users: set[int]) -> bool:
    """Tell whether this is a directory of one of these users, closed to all others."""
    try:
        found = place.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid in users and not found.st_mode & 0o077


def dsn_of(sockets: Path, database: str = "postgres") -> str:
    """Return a DSN that leaves nothing to variables like PGSSLMODE, which are meant for another one."""
    return f"postgresql://chatd@/{database}?host={sockets}&port=5432&sslmode=disable&target_session_attrs=any"
