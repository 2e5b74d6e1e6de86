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

from chatd.errors import StartError

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


@asynccontextmanager
async def own(directory: Path) -> AsyncIterator[None]:
    """Hold the directory's lock: the kernel lets go of it when the process ends, soon after a kill."""
    with (directory / LOCK).open("w") as file:
        for _ in range(int(OWNER_TIMEOUT / POLL)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(POLL)
            else:
                yield
                return
    raise StartError(f"another chatd runs on {directory}: stop it, or set CHATD_DATA_DIR or DATABASE_URL")


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
    return f"postgresql://chatd@/{database}?host={sockets}&port=5432"
