"""The database as chatd would use it: reached, new enough, migrated, durable, with the rights and the room it takes."""

from collections.abc import Iterator
from datetime import UTC, datetime

from chatd.config import Config
from chatd.database import connected, reach_database
from chatd.doctor.findings import Finding, Findings, failed, warning
from chatd.errors import ConfigError
from chatd.migrate import find_pending
from chatd.models import ServerState
from chatd.repo import Repo, open_repo

SKEW = 5.0  # seconds between two clocks that nobody would notice
TWO_ROLES = "have one role own the tables and another one serve (docs/operation.md, Two roles)"
NEWER = "run the release that has migrated it, or restore a backup from before"


async def check_database(config: Config) -> Findings:
    if config.database_url is None and not (config.data_dir / "postgres" / "pgdata").exists():
        yield Finding("database", "the embedded PostgreSQL, which is made at the first start")
        return
    async with reach_database(config, sharing=True) as dsn:
        async with connected("DATABASE_URL", dsn) as conn:
            version = conn.get_server_version()
        async with open_repo(dsn, 1) as repo:
            state = await repo.inspect_server()
            yield Finding("database", f"PostgreSQL {version.major}.{version.micro or version.minor}, as {state.role}")
            yield await look_at_migrations(config, repo, state)
        for finding in look_at_server(config, state):
            yield finding
    if config.migrate_url is not None:
        async with connected("CHATD_MIGRATE_URL", config.migrate_url) as conn:
            yield Finding("migrating role", str(await conn.fetchval("SELECT current_user")))


async def look_at_migrations(config: Config, repo: Repo, state: ServerState) -> Finding:
    try:
        async with repo.connection() as conn:
            names = await find_pending(conn)
    except ConfigError as error:
        return failed("migrations", str(error), NEWER)
    if not names:
        return Finding("migrations", "none is pending")
    detail = f"{len(names)} to apply, from {names[0]} on"
    if config.migrate_url or state.may_create:
        return warning("migrations", detail, "`chatd serve` applies them when it starts; `chatd migrate` does it now")
    return failed("migrations", detail, "run `chatd migrate` with CHATD_MIGRATE_URL, by the role that owns the tables")


def look_at_server(config: Config, state: ServerState) -> Iterator[Finding]:
    yield look_at_role(config, state)
    yield look_at_durability(state)
    yield look_at_connections(config, state)
    yield look_at_clock(state)


def look_at_role(config: Config, state: ServerState) -> Finding:
    if state.missing:
        more = f" and {len(state.missing) - 3} more" if len(state.missing) > 3 else ""
        detail = f"{state.role} has no right to {', '.join(state.missing[:3])}{more}"
        return failed("role", detail, "run `chatd migrate` with CHATD_MIGRATE_URL: it grants what is needed")
    if config.database_url is None:
        return Finding("role", f"{state.role}, of the embedded PostgreSQL")
    if state.is_superuser:
        return warning("role", f"{state.role} is a superuser", TWO_ROLES)
    if state.is_owner:
        return warning("role", f"{state.role} owns the tables, and could change or drop them", TWO_ROLES)
    return Finding("role", f"{state.role} may do what is needed, and owns nothing")


def look_at_durability(state: ServerState) -> Finding:
    off = [name for name in ("fsync", "full_page_writes") if not getattr(state, name)]
    off += ["synchronous_commit"] if state.synchronous_commit == "off" else []
    if off:
        detail = f"{' and '.join(off)}: off, so what was shown to people can be lost"
        return failed("durability", detail, f"set {', '.join(f'{name} = on' for name in off)} in postgresql.conf")
    return Finding("durability", "fsync, full_page_writes and synchronous_commit are on")


def look_at_connections(config: Config, state: ServerState) -> Finding:
    needed, free = config.db_pool + 1, state.max_connections - state.connections
    detail = f"{needed} are needed, {state.max_connections} allowed, {state.connections} of them in use"
    advice = "raise max_connections in postgresql.conf, or lower CHATD_DB_POOL"
    if needed > state.max_connections:
        return failed("connections", detail, advice)
    if needed > free:
        return warning("connections", detail, f"{advice}, unless a running chatd has them")
    return Finding("connections", detail)


def look_at_clock(state: ServerState) -> Finding:
    ahead = (state.now - datetime.now(UTC)).total_seconds()
    if abs(ahead) > SKEW:
        words = f"the database's is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this host's"
        return warning("clock", words, "keep both by NTP (timedatectl set-ntp true)")
    return Finding("clock", f"the database's and this host's agree to {abs(ahead):.1f} s")
