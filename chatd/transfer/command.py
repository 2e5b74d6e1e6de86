"""The commands `chatd export` and `chatd import`: their files, and a progress bar where somebody looks on."""

import argparse
import importlib
import logging
import os
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from chatd.audit.key import read_audit_key
from chatd.commands import open_for_command
from chatd.config import Config
from chatd.embedded_directory import sync_directory
from chatd.errors import ConfigError, InDoubt, StartError
from chatd.transfer.exporting import count_messages, export, find_owners
from chatd.transfer.importing import import_file, open_export
from chatd.transfer.queries import PATIENCE
from chatd.transfer.waiting import ended_by_ctrl_c

logger = logging.getLogger(__name__)


async def export_sessions(config: Config, options: argparse.Namespace) -> None:
    """Write sessions with their messages, as they are at this moment, as JSON Lines: see docs/backup.md.

    Safe beside running servers. What is being answered just now is exported without its answer.
    """
    key = read_audit_key(config)
    counts = Counter({"sessions": 0, "messages": 0})
    with open_output(options.output) as out, progress(" messages") as bar:
        async with open_for_command(config) as repo, telling_of_patience():
            owners = await find_owners(repo, options.owner)
            if not bar.disable:
                bar.reset(await count_messages(repo, owners))
            async with aclosing(export(repo, key, owners, counts)) as pieces:
                async for piece in pieces:
                    with ended_by_ctrl_c():
                        out.write(piece)
                    bar.update(counts["messages"] - bar.n)
        with ended_by_ctrl_c():
            out.flush()
    logger.info("exported sessions: %d, messages: %d", counts["sessions"], counts["messages"])


async def import_sessions(config: Config, options: argparse.Namespace) -> None:
    """Add the sessions of an export that are not there yet, with their messages. What is there stays as it is.

    Safe beside running servers, and to be repeated, wherever it was interrupted.
    """
    key = read_audit_key(config)
    with open_input(options.file) as file, progress("B", size_of(file)) as bar:
        lines = open_export(file, bar.update)
        async with open_for_command(config) as repo, telling_of_patience():
            counts = await import_file(repo, key, lines)
    sys.stdout.write(f"imported {', '.join(f'{what}: {count}' for what, count in counts.items())}\n")


@asynccontextmanager
async def telling_of_patience() -> AsyncIterator[None]:
    """Say why the database may have ended a connection that was in use."""
    try:
        yield
    except InDoubt as error:
        raise StartError(
            "the connection to the database is lost: it is away, too slow, or has waited for a pipe or a pager for"
            f" more than {PATIENCE / 60:.0f} minutes; begin again"
        ) from error


def progress(unit: str, total: int | None = None) -> Any:
    """Return a progress bar on stderr, if that is a terminal."""
    return importlib.import_module("tqdm").tqdm(total=total, unit=unit, unit_scale=True, disable=None, leave=False)


@contextmanager
def open_output(path: Path | None) -> Iterator[BinaryIO]:
    """Yield stdout, or a file that only this user reads and that is in its place once it is whole."""
    if path is None:
        yield sys.stdout.buffer
        return
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise ConfigError("--output: must be a regular file")
    descriptor, name = tempfile.mkstemp(".partial", f"{path.name}.", path.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def open_input(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdin.buffer
        return
    try:
        with ended_by_ctrl_c():  # it may be a named pipe
            file = path.open("rb")
    except OSError as error:
        raise StartError(f"{path} can't be read: {error.strerror}") from error
    with file:
        yield file


def size_of(file: BinaryIO) -> int | None:
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None
