"""What systemd and a service say to each other: a socket that is passed, the state of the service, the watchdog."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger(__name__)

STANDARD_ERROR = 2
FIRST_FD = 3  # SD_LISTEN_FDS_START
BEAT = 5.0  # seconds between two states that are told, where no watchdog wants them sooner
MAX_LAG = 1.0  # seconds that the event loop may be late; if it is later all the time, a restart helps


def passed_socket() -> socket.socket:
    """Return the listening socket that the parent process holds; it stays open there when it is closed here."""
    return socket.socket(fileno=FIRST_FD)


def read_systemd(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return what systemd says to this process, and not to one that it has inherited the environment from.

    https://www.freedesktop.org/software/systemd/man/sd_listen_fds.html, sd_watchdog_enabled.html
    """
    own = str(os.getpid())
    fds = environ.get("LISTEN_FDS", "") if environ.get("LISTEN_PID") == own else ""
    watchdog = environ.get("WATCHDOG_USEC", "") if environ.get("WATCHDOG_PID", own) == own else ""
    return {
        "listen_fds": int(fds) if fds.isdecimal() else 0,
        "watchdog": int(watchdog) / 1e6 if watchdog.isdecimal() else None,
        "to_journal": is_standard_error(environ.get("JOURNAL_STREAM")),
    }


def is_standard_error(stream: str | None) -> bool:
    """Tell whether JOURNAL_STREAM is what standard error goes to: the variable is inherited, always.

    https://www.freedesktop.org/software/systemd/man/systemd.exec.html
    """
    try:
        status = os.fstat(STANDARD_ERROR)
    except OSError:  # it is closed
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def notify(address: str | None, state: str) -> None:
    """Tell the service's state (https://www.freedesktop.org/software/systemd/man/sd_notify.html); do not fail."""
    if address is None:
        return
    path = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
            sender.connect(path)
            sender.send(state.encode())
    except OSError as error:
        logger.debug("the service's state can't be told: %s", error)


async def keep_notifying(address: str | None, watchdog: float | None, describe: Callable[[], str]) -> None:
    """Tell that the service is alive, as long as its event loop is not late, and what it does; for ever."""
    interval = min(BEAT, (watchdog or BEAT) / 3)
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        alive = "WATCHDOG=1\n" if watchdog and loop.time() - due < min(MAX_LAG, interval) else ""
        notify(address, f"{alive}STATUS={describe()}")
