"""Each release's queries still work on today's schema, on rows of their time: processes of both may run at once."""

import itertools
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chatd import __version__
from chatd.connections import QUERIES, Connection
from chatd.migrate import read_migrations
from tests.conftest import execute

ROOT = Path(__file__).parent.parent
RELEASES = Path(__file__).parent / "releases"
VERSIONS = sorted(path.name for path in RELEASES.iterdir())
RELEASED = re.compile(r"^## ([0-9.]+)(?!.*not released)", re.MULTILINE)
STATEMENTS = itertools.count()


class Release:
    """What tools/keep_release.py has kept."""

    def __init__(self, version: str) -> None:
        self.version, self.directory = version, RELEASES / version
        kept = json.loads((self.directory / "release.json").read_text())
        self.migrations: list[str] = kept["migrations"]
        self.queries: dict[str, dict[str, Any]] = kept["queries"]

    def sql(self, name: str) -> str:
        return (self.directory / "queries" / f"{name}.sql").read_text()


class Upgraded:
    """A database with a release's rows and today's schema."""

    def __init__(self, conn: Connection, release: Release) -> None:
        self.conn, self.release = conn, release

    async def find_breaks(self, migration: str = "SELECT 1") -> list[str]:
        """Return what a migration breaks, which is undone then: `query: reason`."""
        transaction = self.conn.transaction()
        await transaction.start()
        try:
            await self.conn.execute(migration)
            found = [(name, await self.break_of(name)) for name in self.release.queries]
        finally:
            await transaction.rollback()
        return [f"{name}: {reason}" for name, reason in found if reason]

    async def break_of(self, name: str) -> str | None:
        kept, sql = self.release.queries[name], self.release.sql(name)
        transaction = self.conn.transaction()
        await transaction.start()
        try:
            statement = await self.conn.prepare(sql)
            found = {
                "parameters": [kind.name for kind in statement.get_parameters()],
                "columns": [[attribute.name, attribute.type.name] for attribute in statement.get_attributes()],
                "result": await self.run(sql, kept["arguments"]),
            }
        except asyncpg.PostgresError as error:
            return str(error)
        finally:
            await transaction.rollback()
        return next((f"{what} {found[what]}, not {kept[what]}" for what in found if found[what] != kept[what]), None)

    async def run(self, sql: str, arguments: list[str]) -> str:
        """Run a query with arguments that are SQL, and return PostgreSQL's word for what came of it."""
        name = f"kept_{next(STATEMENTS)}"  # what was prepared stays, whatever is undone
        await self.conn.execute(f"PREPARE {name} AS {sql}")
        done: str = await self.conn.execute(f"EXECUTE {name}" + (f"({', '.join(arguments)})" if arguments else ""))
        return done


@pytest.fixture(scope="module", params=VERSIONS)
async def upgraded(cluster: str, request: pytest.FixtureRequest) -> AsyncIterator[Upgraded]:
    release = Release(request.param)
    await execute(cluster, "CREATE DATABASE upgraded")
    conn = await asyncpg.connect(cluster.replace("/postgres?", "/upgraded?"))
    migrations = read_migrations()
    for name in release.migrations:
        await conn.execute(migrations.pop(name))
    await conn.execute((release.directory / "fill.sql").read_text())
    for sql in migrations.values():
        await conn.execute(sql)
    yield Upgraded(conn, release)
    await conn.close()
    await execute(cluster, "DROP DATABASE upgraded WITH (FORCE)")


async def test_every_query_of_a_release_works_on_the_schema_of_today(upgraded: Upgraded) -> None:
    assert await upgraded.find_breaks() == []


@pytest.mark.parametrize(
    ("migration", "broken"),
    [
        ("ALTER TABLE agent_messages RENAME COLUMN content TO body", "begin_turn"),
        (
            "ALTER TABLE agent_sessions ADD COLUMN note text NOT NULL DEFAULT '';"
            "ALTER TABLE agent_sessions ALTER COLUMN note DROP DEFAULT",
            "create_session",
        ),
        ("ALTER TABLE agent_turns ADD COLUMN owner text", "find_latest_turn"),  # in it there is that of the session
        ("ALTER TABLE agent_sessions ALTER COLUMN message_count TYPE numeric", "find_session"),
        ("ALTER TABLE agent_events ALTER COLUMN data TYPE varchar(10)", "append_events"),
        ("DROP TABLE agent_usage", "begin_turn"),
        ("ALTER TABLE agent_messages ADD CHECK (role <> 'user') NOT VALID", "begin_turn"),
        ("CREATE TABLE more (id bigint PRIMARY KEY, note text)", None),
        ("CREATE INDEX ON agent_messages (role)", None),
        ("ALTER TABLE agent_turns ADD COLUMN note text, ADD COLUMN notes integer NOT NULL DEFAULT 0", None),
    ],
)
async def test_what_breaks_a_release_is_found(upgraded: Upgraded, migration: str, broken: str | None) -> None:
    """`broken`: a query that the migration breaks; None: it breaks none."""
    found = {line.partition(":")[0] for line in await upgraded.find_breaks(migration)}
    assert broken in found if broken else not found


def test_every_version_that_is_released_is_kept() -> None:
    assert set(RELEASED.findall((ROOT / "CHANGELOG.md").read_text())) <= set(VERSIONS)
    assert RELEASED.findall("## 0.2.0, not released\n## 0.1.0, 2026-12-01\n") == ["0.1.0"]


def test_this_versions_queries_are_kept_as_they_are() -> None:
    kept = {path.stem: path.read_text() for path in (RELEASES / __version__ / "queries").iterdir()}
    assert kept == QUERIES, "make keep-release; after a release under the next version"


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_kept_is_whole(version: str) -> None:
    release = Release(version)
    assert {path.stem for path in (release.directory / "queries").iterdir()} == release.queries.keys()
    assert release.migrations == list(read_migrations())[: len(release.migrations)]
