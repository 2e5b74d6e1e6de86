"""The commands: what they are called, what they take, and how they fail."""

import argparse
import asyncio
import importlib
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

from chatd import __version__, commands, serve
from chatd.config import read_config
from chatd.doctor.command import run_doctor
from chatd.errors import ConfigError, StartError
from chatd.logs import set_up_logging
from chatd.parsing import http_url


def main() -> None:
    """Run a command and exit: 0 done, 2 wrong usage or configuration, 1 failed at run time."""
    options = make_parser().parse_args()
    try:
        config = read_config()
        set_up_logging(config.log_level, config.log_format)
        with asyncio.Runner(loop_factory=find_loop()) as runner:
            runner.run(options.run(config, options))
    except ConfigError as error:
        sys.exit(fail(error, 2))
    except (StartError, OSError) as error:
        sys.exit(fail(error, 1))
    except KeyboardInterrupt:
        sys.exit(fail(StartError("interrupted"), 1))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chatd", description="Durable LLM chat over plain HTTP.")
    parser.add_argument("--version", action="version", version=f"chatd {__version__}")
    names = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, run: Callable[..., object], among: Any = names) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = among.add_parser(name, help=summary, description=run.__doc__)
        added.set_defaults(run=run)
        return added

    command("serve", "migrate the database, then serve until SIGTERM", serve.serve)
    command("migrate", "migrate the database and exit", commands.migrate)
    doctor = command("doctor", "check settings, database and model, or a deployed server", run_doctor)
    doctor.add_argument("url", nargs="?", type=http_url, metavar="URL", help="of a server, as its clients call it")
    token = command("token", "print a token, for development", commands.token)
    token.add_argument("--sub", required=True, metavar="NAME", help="the subject: who the token speaks for")
    token.add_argument("--character", type=int, nargs="+", action="extend", default=[], metavar="N")
    token.add_argument("--ttl", type=float, default=3600, metavar="SECONDS", help="how long it is accepted (3600)")
    token.add_argument("--admin", action="store_true", help="give it the role admin")
    audit = names.add_parser("audit", help="check the audit, or delete what is old in it")
    actions = audit.add_subparsers(dest="action", required=True, metavar="ACTION")
    command("verify", "check that nothing was changed, taken out or put in", commands.verify_audit, actions)
    pruning = command("prune", "delete the entries from before a date", commands.prune_audit, actions)
    pruning.add_argument("--before", required=True, type=date, metavar="DATE", help="2026-11-23, say, or with a time")
    erasing = command("erase", "delete all of a person's data", commands.erase_owner)
    erasing.add_argument("--owner", required=True, type=subject, metavar="NAME", help="the subject of their tokens")
    return parser


def date(text: str) -> datetime:
    given = datetime.fromisoformat(text)
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def subject(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("no subject")
    return text


def find_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop where it is installed: a quarter less CPU for each piece."""
    return importlib.import_module("uvloop").new_event_loop if find_spec("uvloop") else None


def fail(error: Exception, status: int) -> int:
    sys.stderr.writelines(f"chatd: {line}\n" for line in str(error).splitlines())
    return status


if __name__ == "__main__":
    main()
