"""The commands: what they are called, what they take, and how they fail."""

import argparse
import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from chatd import __version__, commands, serve
from chatd.config import read_config
from chatd.doctor.command import run_doctor
from chatd.errors import ConfigError, StartError
from chatd.logs import set_up_logging
from chatd.parsing import http_url
from chatd.systemd import read_systemd
from chatd.transfer.command import export_sessions, import_sessions
from chatd.uncaught import log_uncaught


def main() -> None:
    """Run a command and exit: 0 done, 2 wrong usage or configuration, 1 failed at run time."""
    options = make_parser().parse_args()
    try:
        config = read_config()
        set_up_logging(config.log_level, config.log_format, to_journal=config.to_journal)
        log_uncaught()
        signal.signal(signal.SIGTERM, as_ctrl_c)  # so that the embedded PostgreSQL ends first
        with asyncio.Runner(loop_factory=find_loop()) as runner:
            runner.run(options.run(config, options))
    except ConfigError as error:
        sys.exit(fail(error, 2))
    except BrokenPipeError:  # whoever reads what is printed has seen enough: `| head`, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python has some of it left to write
        sys.exit(1)
    except (StartError, OSError) as error:
        sys.exit(fail(error, 1))
    except KeyboardInterrupt:
        sys.exit(fail("interrupted", 1))


def as_ctrl_c(_: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does, or would do: a shell's background command ignores that."""
    of_ctrl_c = signal.getsignal(signal.SIGINT)
    (of_ctrl_c if callable(of_ctrl_c) else signal.default_int_handler)(signal.SIGINT, frame)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chatd", description="Durable LLM chat over plain HTTP.")
    parser.add_argument("--version", action="version", version=f"chatd {__version__}")
    names = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_command(names, "serve", "migrate the database, then serve until SIGTERM", serve.serve)
    add_command(names, "migrate", "migrate the database and exit", commands.migrate)
    doctor = add_command(names, "doctor", "check settings, database and model, or a deployed server", run_doctor)
    doctor.add_argument("url", nargs="?", type=http_url, metavar="URL", help="a deployed server, as clients reach it")
    token = add_command(names, "token", "print a token, for development", commands.token)
    token.add_argument("--sub", required=True, metavar="NAME", help="the subject: who the token speaks for")
    token.add_argument("--character", type=int, nargs="+", action="extend", default=[], metavar="N")
    token.add_argument("--ttl", type=float, default=3600, metavar="SECONDS", help="how long the token is valid (3600)")
    token.add_argument("--admin", action="store_true", help="give it the role admin")
    add_data_commands(names)
    return parser


def add_data_commands(names: Any) -> None:
    """Add the commands about what is kept: the audit, a person's data, files."""
    audit = names.add_parser("audit", help="check the audit, or delete its old entries")
    actions = audit.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_command(actions, "verify", "check that nothing was changed, taken out or put in", commands.verify_audit)
    pruning = add_command(actions, "prune", "delete the entries from before a date", commands.prune_audit)
    pruning.add_argument("--before", required=True, type=date, metavar="DATE", help="like 2026-11-23, or with a time")
    erasing = add_command(names, "erase", "delete all of an owner's data", commands.erase_owner)
    erasing.add_argument("--owner", required=True, type=subject, metavar="NAME", help="the subject of their tokens")
    summary = "write sessions with their messages to a file, or stdout"
    exporting = add_command(names, "export", summary, export_sessions)
    exporting.add_argument("--owner", type=subject, metavar="NAME", help="only the sessions of this owner")
    exporting.add_argument("--output", type=Path, metavar="FILE", help="write there, once all of it is ready (stdout)")
    summary = "add the sessions of an export that are not there yet"
    importing = add_command(names, "import", summary, import_sessions)
    importing.add_argument("file", type=Path, nargs="?", metavar="FILE", help="a file that export wrote (stdin)")


def add_command(names: Any, name: str, summary: str, run: Callable[..., object]) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = names.add_parser(name, help=summary, description=run.__doc__)
    added.set_defaults(run=run)
    return added


def date(text: str) -> datetime:
    given = datetime.fromisoformat(text)
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def subject(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError
    return text


def find_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop where it is installed: a quarter less CPU for each piece."""
    return importlib.import_module("uvloop").new_event_loop if find_spec("uvloop") else None


def fail(error: object, status: int) -> int:
    prefix = "<3>" if read_systemd()["to_journal"] else ""
    sys.stderr.writelines(f"{prefix}chatd: {line}\n" for line in str(error).splitlines())
    return status


if __name__ == "__main__":
    main()
