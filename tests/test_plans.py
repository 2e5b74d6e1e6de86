"""No query reads more of a large database than it needs, whether it is planned for its arguments or for any."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chatd.connections import QUERIES, Connection
from chatd.repo import open_repo
from tests.conftest import execute
from tests.large_database import ARGUMENTS, FILL, RUNNING, SESSIONS

MOST_ROWS = 250  # that a query may read: an eighth of the smallest table
MORE_ROWS = {
    "claim_turns": RUNNING,  # it looks at all that run: whose process is dead, whose lease is over
    "count_messages": SESSIONS,  # once for an export, which reads much more
}
# Indexes that may be read without a condition; None: the table itself.
IN_ORDER: dict[str, set[str | None]] = {
    "count_messages": {None, "agent_sessions_activity"},
    "claim_turns": {"agent_turns_boot"},
    "sweep_events": {"agent_events_pkey"},  # merged with the oldest turns: from its beginning to the last of these
}
every_query = pytest.mark.parametrize("name", sorted(QUERIES))
every_mode = pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])


@pytest.fixture(scope="module")
async def conn(cluster: str) -> AsyncIterator[Connection]:
    """Yield a connection, as chatd opens its own, to a large database."""
    dsn = cluster.replace("/postgres?", "/large?")
    await execute(cluster, "CREATE DATABASE large TEMPLATE template")
    await execute(dsn, FILL)
    async with open_repo(dsn, 1) as repo, repo.connection() as conn:
        yield conn
    await execute(cluster, "DROP DATABASE large WITH (FORCE)")


@asynccontextmanager
async def undone(conn: Connection, mode: str) -> AsyncIterator[None]:
    """Have what the block runs planned in a mode, and undo it."""
    transaction = conn.transaction()
    await transaction.start()
    try:
        await conn.execute(f"SET LOCAL plan_cache_mode = {mode}")
        yield
    finally:
        await transaction.rollback()


def test_every_query_has_arguments() -> None:
    assert ARGUMENTS.keys() == QUERIES.keys()


@every_mode
@every_query
async def test_it_looks_its_rows_up(conn: Connection, name: str, mode: str) -> None:
    async with undone(conn, mode):
        plan = await explain(conn, name, mode)
    in_order = IN_ORDER.get(name, set())
    found = [node for node in nodes(plan) if reads_all(node) and node.get("Index Name") not in in_order]
    assert not found, json.dumps(plan, indent=1)


async def explain(conn: Connection, name: str, mode: str) -> dict[str, Any]:
    """Return the plan for the query's arguments, or for any: then what these are does not matter."""
    if mode == "force_custom_plan":
        explained = await conn.fetchval(f"EXPLAIN (FORMAT JSON) {QUERIES[name]}", *ARGUMENTS[name])
    else:
        nulls = ", ".join(["NULL"] * len(ARGUMENTS[name]))
        await conn.execute(f"PREPARE {name} AS {QUERIES[name]}")
        explained = await conn.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {name}{nulls and f'({nulls})'}")
    plan: dict[str, Any] = json.loads(explained)[0]["Plan"]
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def reads_all(node: dict[str, Any]) -> bool:
    """Tell whether a node of a plan reads a table, or an index, from one end to the other."""
    return node["Node Type"] == "Seq Scan" or ("Index Name" in node and "Index Cond" not in node)


@every_mode
@every_query
async def test_it_reads_few_rows(conn: Connection, name: str, mode: str) -> None:
    """Neither do its triggers and foreign keys read many."""
    async with undone(conn, mode):
        before = await rows_read(conn)
        await conn.fetch(QUERIES[name], *ARGUMENTS[name])
        read = await rows_read(conn) - before
    assert read <= MOST_ROWS + MORE_ROWS.get(name, 0)


async def rows_read(conn: Connection) -> int:
    return int(
        await conn.fetchval("SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables")
    )
