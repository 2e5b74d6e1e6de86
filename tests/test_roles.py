"""Two roles: one owns the tables, the server's owns nothing and can change no table."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from chatd.config import read_config
from chatd.errors import ConfigError
from chatd.migrate import migrate, read_migrations
from tests.chat_client import until
from tests.conftest import Start, execute
from tests.model_server import ModelServer, says
from tests.server_process import ServerProcess, run, serving
from tests.test_stop import silent

GUIDE = Path(__file__).parent.parent / "docs/operation.md"


@dataclass
class Roles:
    """The DSNs of a database's roles."""

    superuser: str
    owner: str
    server: str


@pytest.fixture
async def roles(cluster: str) -> AsyncIterator[Roles]:
    """Make roles and an empty database as the operation guide says; `chatd` is this cluster's superuser already."""
    section = GUIDE.read_text(encoding="utf-8").partition("## Two roles")[2]
    for statement in section.partition("```sql\n")[2].partition("```")[0].strip().split("\n"):
        await execute(cluster, statement.replace("ROLE chatd ", "ROLE chatd_server "))
    dsn = cluster.replace("/postgres?", "/chatd?")
    yield Roles(dsn, dsn.replace("//chatd@", "//chatd_owner@"), dsn.replace("//chatd@", "//chatd_server@"))
    await execute(cluster, "DROP DATABASE chatd WITH (FORCE)")
    await execute(cluster, "DROP ROLE chatd_owner")
    await execute(cluster, "DROP ROLE chatd_server")


@pytest.fixture
async def migrated(roles: Roles) -> Roles:
    status, output = await run("migrate", DATABASE_URL=roles.server, CHATD_MIGRATE_URL=roles.owner)
    assert status == 0, output
    return roles


async def test_a_role_that_owns_nothing_serves(migrated: Roles, start: Start, model: ModelServer) -> None:
    chat = await start(database_url=migrated.server)
    answer = await chat.post("hi", headers={"Idempotency-Key": "k"})
    session = answer["session_id"]
    assert (await chat.post("hi", headers={"Idempotency-Key": "k"}))["turn_id"] == answer["turn_id"]
    assert (await chat.stream("again", session))[-1].kind == "done"
    assert (await chat.history(session))["message_count"] == 4
    await chat.call("PATCH", f"/agent/session/{session}", json={"title": "x"})
    model.default = silent
    await chat.post("long", session, status=202, headers={"Prefer": "respond-async"})
    assert (await chat.call("POST", f"/agent/chat/stop/{session}"))["stopped"]
    await chat.call("POST", "/agent/stream-ticket", 201, json={"session_id": session})
    await chat.call("DELETE", f"/agent/session/{session}", 204)
    repo = chat.turns.repo
    async with repo.connection() as conn:
        assert await conn.fetchval("SELECT current_user") == "chatd_server"
        assert await conn.fetchval("SELECT count(*) FROM agent_events") == 0


async def test_it_recovers_and_sweeps(migrated: Roles, start: Start, model: ModelServer) -> None:
    model.default = silent
    first = await start(database_url=migrated.server)
    begun = await first.post("hi", status=202, headers={"Prefer": "respond-async"})
    await until(lambda: bool(model.requests))
    await first.turns.drain()
    model.default = says("Hello")
    second = await start(database_url=migrated.server, event_retention=0)
    async with asyncio.timeout(20):
        while (await second.history(begun["session_id"]))["message_count"] < 2:
            await asyncio.sleep(0.05)
    repo = second.turns.repo
    assert await repo.sweep_events(0, 100, 1000) == 1
    assert await repo.sweep_keys(10) == await repo.sweep_tickets(10, 0) == 0


async def test_a_statement_in_doubt_is_undone(migrated: Roles, start: Start) -> None:
    """Its connection is ended by another one of the same role."""
    chat = await start(database_url=migrated.server)
    repo = chat.turns.repo
    async with repo.connection() as conn:
        assert (await repo._one("terminate_backend", conn.get_server_pid()))["gone"]


FORBIDDEN = [
    "DROP TABLE agent_messages",
    "ALTER TABLE agent_messages ADD COLUMN x text",
    "TRUNCATE agent_messages",
    "CREATE TABLE x ()",
    "CREATE FUNCTION x() RETURNS void LANGUAGE sql AS ''",
    "CREATE TRIGGER x AFTER DELETE ON agent_turns EXECUTE FUNCTION agent_turns_delete_events()",
    "DROP TRIGGER agent_turns_delete_events ON agent_turns",
    "CREATE INDEX ON agent_messages (role)",
    "UPDATE agent_migrations SET sha256 = ''",
    "DELETE FROM agent_migrations",
    "INSERT INTO agent_migrations (name, sha256) VALUES ('x', 'x')",
    "SET ROLE chatd_owner",
    "UPDATE agent_audit SET action = ''",
    "DELETE FROM agent_audit",
]


async def test_what_it_may_not(migrated: Roles) -> None:
    owner = await asyncpg.connect(migrated.owner)
    await owner.execute("CREATE TABLE IF NOT EXISTS agent_audit (seq bigserial, action text)")
    assert (await run("migrate", DATABASE_URL=migrated.server, CHATD_MIGRATE_URL=migrated.owner))[0] == 0
    await owner.close()
    conn = await asyncpg.connect(migrated.server)
    for sql in FORBIDDEN:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(sql)
    assert await conn.fetchval("SELECT count(*) FROM agent_migrations") == len(read_migrations())
    await conn.fetch("SELECT FROM agent_audit")
    await conn.close()


async def test_granting_takes_back_what_is_too_much(migrated: Roles) -> None:
    await execute(migrated.owner, "GRANT ALL ON ALL TABLES IN SCHEMA public TO chatd_server")
    assert (await run("migrate", DATABASE_URL=migrated.server, CHATD_MIGRATE_URL=migrated.owner))[0] == 0
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await execute(migrated.server, "DELETE FROM agent_migrations")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await execute(migrated.server, "TRUNCATE agent_events")


async def test_serving_what_is_not_migrated(roles: Roles, tmp_path: Path, model: ModelServer) -> None:
    settings = {"DATABASE_URL": roles.server, "CHATD_DATA_DIR": str(tmp_path), "ANTHROPIC_BASE_URL": model.url}
    for command in ("serve", "migrate"):
        status, output = await run(command, CHATD_PORT="0", **settings)
        assert status == 1
        assert output.splitlines()[-1].startswith("chatd: DATABASE_URL: its role may not migrate the database: run")
        assert "Traceback" not in output
    for _ in range(2):
        async with serving(ServerProcess(None, **settings, CHATD_MIGRATE_URL=roles.owner)) as chat:
            assert (await chat.post("hi"))["message"]["content"] == "Hello, world."
    async with serving(ServerProcess(None, **settings)) as chat:
        assert (await chat.post("hi"))["message"]["content"] == "Hello, world."


async def test_a_migrate_url_that_is_of_no_use(roles: Roles, dsn: str) -> None:
    async def migrate_by(url: str) -> tuple[int, str]:
        status, output = await run("migrate", DATABASE_URL=roles.server, CHATD_MIGRATE_URL=url)
        assert "Traceback" not in output
        return status, output.splitlines()[-1]

    assert (await migrate_by(dsn))[1].startswith("chatd: CHATD_MIGRATE_URL: DATABASE_URL does not find")
    assert (await migrate_by(roles.server))[1].startswith("chatd: CHATD_MIGRATE_URL: permission denied")
    assert (await migrate_by("postgresql://u:canary/x@127.0.0.1:1/x"))[1].startswith(
        "chatd: CHATD_MIGRATE_URL: can't be"
    )
    assert (await migrate_by("postgresql://nobody_there@127.0.0.1:9/x"))[1].startswith("chatd: CHATD_MIGRATE_URL: the")
    with pytest.raises(ConfigError, match="CHATD_MIGRATE_URL: goes with DATABASE_URL"):
        read_config({"CHATD_MIGRATE_URL": "postgresql://x/y"})


async def test_tables_that_the_servers_role_has_made_are_handed_over(roles: Roles) -> None:
    await execute(roles.superuser, "GRANT CREATE ON SCHEMA public TO chatd_server")
    conn = await asyncpg.connect(roles.server)
    await migrate(conn)
    await conn.close()
    settings = {"DATABASE_URL": roles.server, "CHATD_MIGRATE_URL": roles.owner}
    status, output = await run("migrate", **settings)
    assert status == 1
    assert "permission denied" in output.splitlines()[-1]
    status, output = await run("migrate", **settings | {"CHATD_MIGRATE_URL": roles.superuser})
    assert status == 0
    assert "may act as their owner" in output
    await execute(roles.superuser, "REASSIGN OWNED BY chatd_server TO chatd_owner")
    status, output = await run("migrate", **settings)
    assert status == 0
    assert "may act as their owner" not in output


async def test_a_role_that_may_not_even_connect(roles: Roles) -> None:
    await execute(roles.superuser, "REVOKE CONNECT ON DATABASE chatd FROM PUBLIC")
    status, output = await run("migrate", DATABASE_URL=roles.server, CHATD_MIGRATE_URL=roles.owner)
    assert status == 2
    assert output.splitlines()[-1].startswith("chatd: DATABASE_URL: permission denied")
