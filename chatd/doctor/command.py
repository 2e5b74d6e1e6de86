"""The command: which checks are made, in which order, and when the others are of no use any more."""

import argparse
import importlib
import logging
import sys

import aiohttp

from chatd.config import Config
from chatd.doctor import database, host, model, proxy, streams, turn
from chatd.doctor.client import Client
from chatd.doctor.findings import Report
from chatd.installed import check_jwt
from chatd.parsing import is_local

SHORT, LONG = 30.0, 120.0  # seconds
CHARACTER = 1
TOKEN_LIFE = 900.0


async def run_doctor(config: Config, options: argparse.Namespace) -> None:
    """Check settings, files, database and model; or, given a URL, a deployed server through its proxy.

    The model is asked for one token; through a proxy, for the beginning of an answer, in a session that is deleted
    again.
    """
    logging.getLogger("chatd").setLevel(logging.ERROR)  # what is wrong is told by the findings
    report = Report(sys.stdout)
    await (check_deployed(config, options.url, report) if options.url else check_here(config, report))
    report.finish()


async def check_here(config: Config, report: Report) -> None:
    await report.run("settings", SHORT, host.check_settings(config))
    installed = await report.run("installed", SHORT, host.check_installed(config))
    await report.run("credentials", SHORT, host.check_credentials(config))
    await report.run("audit key", SHORT, host.check_audit_key(config))
    await report.run("data directory", SHORT, host.check_data_directory(config))
    await report.run("open files", SHORT, host.check_open_files(config))
    if installed or config.database_url is not None:
        await report.run("database", LONG, database.check_database(config))
    if installed or not config.is_local_model:
        await report.run("model", LONG, model.check_model(config))


async def check_deployed(config: Config, url: str, report: Report) -> None:
    async with aiohttp.ClientSession(trust_env=not is_local(url)) as session:
        client = Client(session, url, find_token(config))
        if not await report.run("reachable", SHORT, proxy.check_reachable(client)):
            return
        if not await report.run("TLS", SHORT, proxy.check_tls(client)):  # nothing with a token has been sent by now
            return
        await report.run("inner paths", SHORT, proxy.check_outside(client))
        if not await report.run("auth", SHORT, proxy.check_auth(client)):
            return
        await report.run("stream", streams.LIMIT + SHORT, streams.check_stream(client))
        await report.run("turn", 2 * LONG, turn.check_turn(client))


def find_token(config: Config) -> str | None:
    """Return the token that is set, else one that is made with the secret, where there is that."""
    if config.token is not None or config.jwt_secret is None:
        return config.token
    check_jwt()
    tokens = importlib.import_module("chatd.tokens")
    minted: str = tokens.mint(config, "chatd-doctor", [CHARACTER], TOKEN_LIFE, admin=False)
    return minted
