"""The command `chatd serve`: open everything, listen, and on SIGTERM let nobody in any more and everybody out."""

import argparse
import asyncio
import errno
import logging
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from chatd import __version__, crash
from chatd.app import create_app, drain
from chatd.config import ANONYMOUS_IS_LOCAL, Config
from chatd.errors import ConfigError, StartError
from chatd.installed import check_installed
from chatd.keys import TURNS
from chatd.llm import ANTHROPIC
from chatd.log_events import log_event
from chatd.logs import AccessLogger, choose_format
from chatd.parsing import is_loopback
from chatd.systemd import notify, passed_socket
from chatd.uncaught import LoopErrors

logger = logging.getLogger("chatd")

SHUTDOWN_TIMEOUT = 0.4  # seconds for connections that nothing has ended; aiohttp waits twice
KEEPALIVE_TIMEOUT = 3630.0  # longer than any proxy keeps an idle connection, so that it is the proxy that closes
BACKLOG = 1024

TRY = """try: curl -N {url}/agent/chat/stream -H 'Content-Type: application/json' \
-d '{{"message": "What is the capital of France?", "character_id": 1}}'"""


async def serve(config: Config, _options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT. Settings come from the environment: see the README."""
    crash.arm(config.crash_point)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.set_exception_handler(LoopErrors())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    check_installed(config)
    runner = make_runner(create_app(config))
    starting, stopping = asyncio.create_task(start(config, runner)), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await stopping
            await shut_down(config, runner)
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await runner.cleanup()


async def shut_down(config: Config, runner: web.AppRunner) -> None:
    """Let nobody in any more, and serve who is in to the end."""
    turns = len(runner.app[TURNS].running)
    log_event(logger, logging.INFO, "server.stopping", "shutting down, turns running: %(turns)d", turns=turns)
    notify(config.notify_socket, "STOPPING=1")
    for site in list(runner.sites):
        await site.stop()
    await drain(runner.app)


def make_runner(app: web.Application) -> web.AppRunner:
    return web.AppRunner(
        app,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_TIMEOUT,
        keepalive_timeout=KEEPALIVE_TIMEOUT,
        access_log_class=AccessLogger,
    )


async def start(config: Config, runner: web.AppRunner) -> None:
    """Open everything and listen."""
    await runner.setup()
    await listen(config, runner)
    announce(config, runner)
    notify(config.notify_socket, "READY=1")


async def listen(config: Config, runner: web.AppRunner) -> None:
    try:
        if config.listen_fds:
            await web.SockSite(runner, take_socket(config), backlog=BACKLOG).start()
        elif config.socket is not None:
            refuse_used(config.socket)
            await web.UnixSite(runner, config.socket, backlog=BACKLOG).start()
        else:
            await web.TCPSite(runner, config.host, config.port, backlog=BACKLOG).start()
    except UnicodeError:
        raise ConfigError(f"CHATD_HOST: {config.host} is not a valid host name") from None
    except OSError as error:
        port = f"CHATD_HOST, CHATD_PORT: {config.host}:{config.port}"
        where = f"CHATD_SOCKET: {config.socket}" if config.socket else port
        raise StartError(f"{where}: can't listen there: {error.strerror or error}") from error


def take_socket(config: Config) -> socket.socket:
    """Return the socket that systemd passes; raises ConfigError for one that is none, or that the world can reach."""
    if config.listen_fds != 1:
        raise ConfigError(f"LISTEN_FDS: {config.listen_fds} sockets are passed, chatd takes one")
    passed = passed_socket()
    if passed.family in (socket.AF_INET, socket.AF_INET6) and not config.is_open:
        host = passed.getsockname()[0]
        if not is_loopback(host):
            raise ConfigError(f"the passed socket: {host} is reachable from outside; {ANONYMOUS_IS_LOCAL}")
    return passed


def refuse_used(path: Path) -> None:
    """Raise OSError where another server listens on a socket: it would be cut off without a word."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        with suppress(FileNotFoundError, ConnectionRefusedError):
            probe.connect(str(path))
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def announce(config: Config, runner: web.AppRunner) -> None:
    """Say what is used and how to reach it."""
    if config.auth == "none" and (config.jwt_secret or config.jwt_jwks_url):
        logger.warning("CHATD_AUTH is none: no token is required, though keys for tokens are set")
    logger.info("database: %s", describe_database(config))
    logger.info("model: %s", describe_model(config))
    address = runner.addresses[0]
    url = address if isinstance(address, str) else url_of(*address[:2])
    listening = "listening on %(address)s"
    log_event(logger, logging.INFO, "server.listening", listening, address=url, version=__version__)
    if url != address and choose_format(config.log_format) == "text":
        logger.info(TRY.format(url=url))


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def describe_database(config: Config) -> str:
    if config.database_url is None:
        return f"embedded PostgreSQL in {config.data_dir / 'postgres'} (set DATABASE_URL for another)"
    url = urlsplit(config.database_url)
    return f"{url.path.lstrip('/') or 'default'} at {url.hostname or 'local socket'}"


def describe_model(config: Config) -> str:
    if config.is_local_model:
        return "the small local one, for trying things out: expect nonsense (set ANTHROPIC_API_KEY for a real one)"
    return f"{config.model} at {urlsplit(config.base_url or ANTHROPIC).hostname}"
