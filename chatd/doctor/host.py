"""What this host has for chatd: what is installed, files and who may read them, room, open files."""

import os
import platform
import pwd
import resource
import shutil
import stat
import tempfile
from importlib.util import find_spec

from chatd import __version__
from chatd.audit.key import FILE, read_audit_key
from chatd.config import Config, secret_files
from chatd.doctor.findings import Finding, Findings, failed, warning
from chatd.embedded import LEAST_FREE, find_binaries
from chatd.errors import ConfigError
from chatd.installed import check_jwt
from chatd.local_model import find_model

FREE = 1 << 30  # bytes below which the disk is nearly full
SPARE_FILES = 100  # beside streams and connections to the database: the program's own, logs, listeners


async def check_settings(config: Config) -> Findings:
    """Tell what is configured; a mistake in it has ended the command by now."""
    database = "DATABASE_URL" if config.database_url else "embedded PostgreSQL"
    model = "the local one" if config.is_local_model else config.model
    yield Finding("settings", f"auth {config.auth}, database: {database}, model: {model}")


async def check_installed(config: Config) -> Findings:
    """Tell what is installed; what the settings need and is missing ends the check."""
    if config.database_url is None:
        find_binaries()
    if config.is_local_model:
        find_model(config.local_model)
    if config.auth == "jwt":
        check_jwt()
    loop = "uvloop" if find_spec("uvloop") else "no uvloop"
    yield Finding("installed", f"chatd {__version__}, Python {platform.python_version()}, {loop}")


async def check_credentials(config: Config) -> Findings:
    """Look at who may read the files that secrets are in."""
    files = secret_files()
    if config.audit_key is None and (config.data_dir / FILE).exists():
        files["CHATD_AUDIT_KEY"] = config.data_dir / FILE
    exposed = [name for name, file in files.items() if file.stat().st_mode & stat.S_IRWXO]
    for name in exposed:
        mode = stat.filemode(files[name].stat().st_mode)
        yield warning(name, f"others may use {files[name]} ({mode})", f"chmod o= {files[name]}")
    if not exposed:
        yield Finding("credentials", f"{len(files)} from files, none of which others may read")


async def check_audit_key(config: Config) -> Findings:
    if config.audit_key is None and not (config.data_dir / FILE).exists():
        yield Finding("audit key", f"{config.data_dir / FILE}, which is made at the first start")
        return
    try:
        read_audit_key(config)
    except ConfigError as error:
        yield failed("audit key", str(error), "put the key's file back from a backup; another key breaks the chain")
    else:
        yield Finding("audit key", "CHATD_AUDIT_KEY" if config.audit_key else str(config.data_dir / FILE))


async def check_data_directory(config: Config) -> Findings:
    """Write a file in the data directory, or where it is going to be, and see how much room there is."""
    place = next(path for path in (config.data_dir.absolute(), *config.data_dir.absolute().parents) if path.exists())
    user = user_name()
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"chatd doctor")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = f"{user} can't write in {place}: {error.strerror}"
        yield failed("data directory", reason, f"run this as the user that runs chatd, who has to own {place}")
        return
    detail = f"{config.data_dir}{'' if config.data_dir.absolute() == place else ', which is made at the first start'}"
    free = shutil.disk_usage(place).free
    yield look_at_room(f"{detail}: {user} may write there", free, embedded=config.database_url is None)


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # as in a container
        return str(os.geteuid())


def look_at_room(detail: str, free: int, *, embedded: bool) -> Finding:
    """Judge the room that is free where the embedded PostgreSQL is; one of its own has its disk elsewhere."""
    detail = f"{detail}, {free / (1 << 30):.1f} GiB are free"
    if not embedded and free < LEAST_FREE:
        return warning("data directory", detail, "make room: keys and logs are kept there")
    if embedded and free < LEAST_FREE:
        return failed("data directory", detail, "make room: PostgreSQL stops when its disk is full")
    if embedded and free < FREE:
        return warning("data directory", detail, "make room before PostgreSQL runs out of it and stops")
    return Finding("data directory", detail)


async def check_open_files(config: Config) -> Findings:
    """Compare how many files a process may have open with what as many turns need as may run."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = SPARE_FILES + config.db_pool + 2 * config.max_turns  # of each a reader, and the model's connection
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield Finding("open files", f"{soft} are allowed, {needed} needed for {config.max_turns} turns at once")
        return
    room = max(0, soft - SPARE_FILES - config.db_pool) // 2
    detail = f"{soft} are allowed: room for {room} turns at once, CHATD_MAX_TURNS is {config.max_turns}"
    advice = f"raise it (LimitNOFILE={needed} in the unit, ulimit -n {needed} in a shell), or lower CHATD_MAX_TURNS"
    yield warning("open files", detail, advice)
