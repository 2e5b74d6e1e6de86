"""Keep this version's queries for the tests of later ones: see docs/upgrades.md.

In tests/releases/VERSION, with nothing that needs this version's code: the queries; the rows of a large database; and
in release.json the migrations, and of each query the arguments as SQL, the types that it takes and gives, and what came
of it.
"""

import asyncio
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from chatd import __version__
from chatd.connections import QUERIES, set_codecs
from chatd.embedded import open_postgres
from chatd.migrate import migrate, read_migrations
from tests.large_database import ARGUMENTS, FILL

NOW = datetime.now(UTC)  # that of the arguments, which have just been imported
ROOT = Path(__file__).parent.parent
RELEASES = ROOT / "tests" / "releases"


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with open_postgres(Path(directory), ("fsync=off",)) as dsn:
            files = await describe(dsn)
    keep(RELEASES / __version__, files)


async def describe(dsn: str) -> dict[str, str]:
    """Return the files to keep, by their paths."""
    conn = await asyncpg.connect(dsn, server_settings={"jit": "off"})
    await set_codecs(conn)
    await migrate(conn)
    await conn.execute(FILL)
    queries = {name: await describe_query(conn, name) for name in sorted(QUERIES)}
    release = {"migrations": list(read_migrations()), "queries": queries}
    await conn.close()
    texts = {f"queries/{name}.sql": sql for name, sql in QUERIES.items()}
    return {**texts, "fill.sql": FILL, "release.json": json.dumps(release, indent=1) + "\n"}


async def describe_query(conn: Any, name: str) -> dict[str, Any]:
    statement = await conn.prepare(QUERIES[name])
    types = [kind.name for kind in statement.get_parameters()]
    arguments = [await write(conn, value, kind) for value, kind in zip(ARGUMENTS[name], types, strict=True)]
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute(f"PREPARE kept AS {QUERIES[name]}")
    values = f"({', '.join(arguments)})" if arguments else ""
    result = await conn.execute(f"EXECUTE kept{values}")
    await conn.execute("DEALLOCATE kept")
    await transaction.rollback()
    columns = [[attribute.name, attribute.type.name] for attribute in statement.get_attributes()]
    return {"arguments": arguments, "parameters": types, "columns": columns, "result": result}


async def write(conn: Any, value: Any, kind: str) -> str:
    """Return an argument as SQL; a time as what it is from now on."""
    if isinstance(value, datetime):
        return f"now() + interval '{round((value - NOW).total_seconds())} seconds'"
    if isinstance(value, list) and any(isinstance(item, datetime) for item in value):
        return f"ARRAY[{', '.join([await write(conn, item, kind) for item in value])}]"
    written: str = await conn.fetchval(f"SELECT quote_nullable($1::{kind}::text)", value)
    return written


def keep(directory: Path, files: dict[str, str]) -> None:
    """Write the files; of a version that is released nothing may change any more."""
    kept = {path: (directory / path).read_text() for path in files if (directory / path).exists()}
    if directory.exists() and is_released(__version__) and kept != files:
        sys.exit(f"{directory} is kept from the release of {__version__}: give the new one another version")
    for path, text in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    for stale in {path.name for path in (directory / "queries").iterdir()} - {f"{name}.sql" for name in QUERIES}:
        (directory / "queries" / stale).unlink()
    sys.stdout.write(f"kept {len(QUERIES)} queries in {directory}\n")


def is_released(version: str) -> bool:
    return f"## {version}, not released" not in (ROOT / "CHANGELOG.md").read_text()


if __name__ == "__main__":
    asyncio.run(main())
