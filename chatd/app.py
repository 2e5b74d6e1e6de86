"""The application: every route, resource and middleware on one screen."""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from aiohttp import web

from chatd import protocol
from chatd.audit.key import read_audit_key
from chatd.audit.recording import record_refusals
from chatd.audit.writer import Audit
from chatd.background import background
from chatd.config import Config
from chatd.cors import add_cors, answer_preflights
from chatd.database import open_database
from chatd.handlers import audit as audits
from chatd.handlers import (
    chat,
    health,
    history,
    me,
    metrics,
    openapi,
    page,
    sessions,
    stream,
    stream_test,
    tickets,
)
from chatd.headers import add_headers
from chatd.journal import Journal
from chatd.keys import AUDIT, CHECK_TOKEN, CONFIG, JOURNAL, LIMITS, LLM, METRICS, MIRRORS, REPO, TRACING, TURNS
from chatd.limits import Limits
from chatd.llm import Llm
from chatd.local_model import open_local_model
from chatd.measuring import count_response, watch_lag
from chatd.metrics import Metrics
from chatd.middlewares import authenticate, problems, request_id
from chatd.mirrors import Mirrors
from chatd.notices import listen
from chatd.quotas import add_quotas
from chatd.recovery import Recovery, hold_boot_id
from chatd.repo import open_repo
from chatd.requests import MAX_BODY
from chatd.sse import limit_unread
from chatd.sweeps import sweep
from chatd.systemd import keep_notifying
from chatd.turns import Turns

ROUTES = [
    web.post("/agent/chat", chat.post_chat),
    web.post("/agent/chat/stream", chat.post_stream),
    web.get("/agent/chat/stream/{session_id}", stream.get_stream, allow_head=False),
    web.get("/agent/stream-test", stream_test.get_stream_test, allow_head=False),
    web.get("/agent/chat/history/{session_id}", history.get_history),
    web.post("/agent/chat/stop/{session_id}", chat.post_stop),
    web.post("/agent/stream-ticket", tickets.post_ticket),
    web.post("/agent/session", sessions.post_session),
    web.get("/agent/sessions", sessions.get_sessions),
    web.get("/agent/session/{session_id}", sessions.get_session),
    web.patch("/agent/session/{session_id}", sessions.patch_session),
    web.delete("/agent/session/{session_id}", sessions.delete_session),
    web.get("/agent/me", me.get_me),
    web.get("/agent/audit", audits.get_audit),
    web.get("/healthz", health.get_healthz),
    web.get("/readyz", health.get_readyz),
    web.get("/metrics", metrics.get_metrics),
    web.get("/openapi.json", openapi.get_document),
    web.get("/", page.get_page),
    web.get("/docs", page.get_docs),
    web.get("/web/{path:.+}", page.get_file),
    web.get("/favicon.ico", page.get_icon),
]


def create_app(config: Config) -> web.Application:
    """Return the application; it opens its resources when it starts, in this order, and closes them in reverse."""
    protocol.install()
    middlewares = [request_id, problems, record_refusals, answer_preflights, authenticate]
    if config.otlp_endpoint:
        middlewares.append(importlib.import_module("chatd.traces").follow_trace)
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY)
    app[CONFIG], app[LIMITS], app[METRICS] = config, Limits(config), Metrics(config.model, config.prices)
    app.add_routes(ROUTES)
    app.on_response_prepare.extend(
        [add_headers, add_cors, add_quotas, limit_reading, close_when_draining, count_response]
    )
    app.on_shutdown.append(drain)
    app.cleanup_ctx.extend([traces_context, tokens_context, model_context, database_context, turns_context])
    return app


@asynccontextmanager
async def tokens_context(app: web.Application) -> AsyncIterator[None]:
    if app[CONFIG].auth == "none":
        yield
        return
    tokens = importlib.import_module("chatd.tokens")  # and with it a cryptography library that others can do without
    async with tokens.open_tokens(app[CONFIG]) as opened:
        app[CHECK_TOKEN] = opened.check
        yield


@asynccontextmanager
async def traces_context(app: web.Application) -> AsyncIterator[None]:
    if not app[CONFIG].otlp_endpoint:
        yield
        return
    async with importlib.import_module("chatd.traces").open_tracing(app[CONFIG]) as app[TRACING]:
        yield


@asynccontextmanager
async def database_context(app: web.Application) -> AsyncIterator[None]:
    config = app[CONFIG]
    async with open_database(config) as dsn, open_repo(dsn, config.db_pool, app[METRICS]) as app[REPO]:
        yield


@asynccontextmanager
async def model_context(app: web.Application) -> AsyncIterator[None]:
    config = app[CONFIG]
    async with open_local_model(config) if config.is_local_model else nullcontext() as local:
        llm = app[LLM] = Llm(config, local)
        try:
            async with background(llm.warm_up()):
                yield
        finally:
            await llm.close()


@asynccontextmanager
async def turns_context(app: web.Application) -> AsyncIterator[None]:
    """Start what turns need, in order: audit, journal, turns, mirrors, recovery, and their tasks."""
    config, repo, measured = app[CONFIG], app[REPO], app[METRICS]
    with hold_boot_id(config.data_dir) as boot_id:
        audit = app[AUDIT] = Audit(repo, read_audit_key(config, make=True))
        journal = app[JOURNAL] = Journal(repo, config.flush_interval, measured.journal)
        turns = app[TURNS] = Turns(config, repo, journal, app[LLM], boot_id, measured, app.get(TRACING))
        mirrors = app[MIRRORS] = Mirrors(repo, turns)
        measured.turns.watch(turns, mirrors)
        recovery = Recovery(turns, config.data_dir)
        notices = {
            "stop": turns.hear_stop,
            "follow": turns.hear_follow,
            "events": mirrors.hear_events,
            "orphans": recovery.hear_orphans,
        }
        async with background(
            audit.run(),
            journal.run(),
            journal.keep_telling(),
            listen(repo, notices),
            recovery.keep_leases(),
            recovery.keep_claiming(),
            sweep(repo, config.event_retention),
            watch_lag(measured.lag),
            keep_notifying(config.notify_socket, config.watchdog, turns.describe),
        ):
            yield
            await audit.flush()


async def drain(app: web.Application) -> None:
    """Let running turns end and let go of all streams, before the connections that wait for them are closed."""
    await asyncio.gather(app[TURNS].drain(), app[MIRRORS].close(), app[AUDIT].drain())


async def limit_reading(request: web.Request, _response: web.StreamResponse) -> None:
    """Cut a client that does not read its answer."""
    limit_unread(request, request.app[CONFIG].write_timeout)


async def close_when_draining(request: web.Request, response: web.StreamResponse) -> None:
    """Have the client make its next request on a new connection: to the next process."""
    if request.app[TURNS].draining:
        response.force_close()
        response.headers["Connection"] = "close"
