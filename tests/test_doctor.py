"""`chatd doctor` on a host: everything that can be wrong is found by name, and what is right is not."""

import asyncio
import io
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chatd.config import Config
from chatd.database import prepare
from chatd.doctor.command import check_here
from chatd.doctor.database import look_at_clock, look_at_durability
from chatd.doctor.findings import Finding, Findings, Report
from chatd.doctor.host import look_at_room
from chatd.embedded import open_postgres
from chatd.embedded_directory import find_running
from chatd.repo import open_repo
from tests.conftest import execute
from tests.doctor import Said, ask_doctor, run_doctor
from tests.model_server import ModelServer, fails
from tests.server_process import ServerProcess, run, serving

KEY = "sk-canary-key"
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
async def durable(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Yield the DSN of a PostgreSQL as it should be (the tests' own has fsync off), with two more roles."""
    async with open_postgres(tmp_path_factory.mktemp("durable")) as dsn:
        await execute(dsn, "CREATE ROLE chatd_owner LOGIN; CREATE ROLE chatd_server LOGIN")
        yield dsn


@pytest.fixture
async def well(durable: str, config: Config, tmp_path: Path) -> Config:
    """Return the settings of a chatd whose role owns nothing, with a migrated database of the test's own."""
    name = f"well_{next(NUMBERS)}"
    await execute(durable, f"CREATE DATABASE {name} OWNER chatd_owner")
    dsn = durable.replace("/postgres?", f"/{name}?")
    owner, server = (dsn.replace("//chatd@", f"//chatd_{role}@") for role in ("owner", "server"))
    await prepare(server, owner, granting=True)
    return replace(config, database_url=server, migrate_url=owner, data_dir=tmp_path / "data")


def environment(config: Config) -> dict[str, str]:
    return {
        "DATABASE_URL": config.database_url or "",
        "CHATD_MIGRATE_URL": config.migrate_url or "",
        "CHATD_DATA_DIR": str(config.data_dir),
        "ANTHROPIC_BASE_URL": config.base_url or "",
        "ANTHROPIC_API_KEY": config.api_key or "",
        "CHATD_MODEL": config.model,
    }


async def doctor(config: Config, **changes: Any) -> Said:
    said = await ask_doctor(partial(check_here, replace(config, **changes)))
    assert "canary" not in said.output
    return said


async def test_all_is_well(well: Config, model: ModelServer) -> None:
    said = await run_doctor(**environment(well))
    assert (said.status, said.bad()) == (0, {}), said.output
    assert said.found.keys() == {
        *("settings", "installed", "credentials", "audit key", "data directory", "open files"),
        *("database", "migrations", "role", "durability", "connections", "clock", "migrating role", "model"),
    }
    assert "chatd_server may do what is needed" in said.found["role"][1]
    assert said.output.splitlines()[-1].strip() == "14 ok, 0 warning, 0 FAILED"
    [request] = model.requests
    assert request.body["max_tokens"] == 1
    assert any(KEY in value for value in request.headers.values())


async def test_wrong_settings_are_all_named() -> None:
    status, output = await run("doctor", CHATD_PORT="x", CHATD_DB_POOL="0")
    assert (status, [line.split(":")[1] for line in output.splitlines()]) == (2, [" CHATD_PORT", " CHATD_DB_POOL"])
    assert (await run("doctor", "ftp://chatd.example"))[0] == 2


async def test_what_may_be_lost_and_who_may_lose_it(config: Config) -> None:
    """The tests' cluster has fsync off, and its only role is a superuser."""
    said = await run_doctor(**environment(config))
    assert said.status == 1
    assert said.bad() == {"durability": "FAILED", "role": "warning"}
    assert said.found["durability"][1].startswith("fsync: off")
    assert said.advice("durability") == "set fsync = on in postgresql.conf"
    assert said.found["role"][1] == "chatd is a superuser"
    assert said.output.endswith("chatd: doctor: 11 ok, 1 warning, 1 FAILED\n")


@pytest.mark.parametrize(
    ("status", "level", "detail", "advice"),
    [
        (401, "FAILED", "refuses the key (401)", "ANTHROPIC_API_KEY"),
        (404, "FAILED", "is not known there (404)", "CHATD_MODEL"),
        (400, "FAILED", "did not accept the request. (400)", "the model's server"),
        (529, "warning", "The model is overloaded", "it may pass"),
    ],
)
async def test_a_model_that_does_not_answer(
    well: Config, model: ModelServer, status: int, level: str, detail: str, advice: str
) -> None:
    model.default = fails(status, message="a-canary")
    said = await doctor(well)
    assert said.bad() == {"model": level}
    assert said.status == (1 if level == "FAILED" else 0)
    assert f"test-model at {model.url}" in said.found["model"][1]
    assert detail in said.found["model"][1]
    assert advice in said.advice("model")


async def test_nothing_is_there(config: Config) -> None:
    """Each is found by itself."""
    nobody = "postgresql://nobody:canary@127.0.0.1:9/x"
    said = await doctor(config, database_url=nobody, base_url="http://127.0.0.1:9")
    assert said.status == 1
    assert said.bad() == {"database": "FAILED", "model": "FAILED"}
    assert "DATABASE_URL: the database can't be reached" in said.found["database"][1]
    assert "http://127.0.0.1:9 can't be reached: " in said.found["model"][1]


async def test_migrations(well: Config, durable: str) -> None:
    await execute(durable, "CREATE DATABASE empty")
    empty = durable.replace("/postgres?", "/empty?")
    said = await doctor(well, database_url=empty, migrate_url=None)
    assert (said.status, said.bad()) == (0, {"migrations": "warning", "role": "warning"})
    assert "from 0001_initial.sql on" in said.found["migrations"][1]

    said = await doctor(well, database_url=empty.replace("//chatd@", "//chatd_server@"), migrate_url=None)
    assert (said.status, said.bad()) == (1, {"migrations": "FAILED"})
    assert "run `chatd migrate` with CHATD_MIGRATE_URL" in said.advice("migrations")

    assert well.migrate_url
    await execute(well.migrate_url, "INSERT INTO agent_migrations (name, sha256) VALUES ('9999_future.sql', '')")
    said = await doctor(well)
    assert (said.status, said.bad()) == (1, {"migrations": "FAILED"})
    assert "newer than this program: it has 9999_future.sql" in said.found["migrations"][1]


async def test_rights_that_are_missing(well: Config) -> None:
    assert well.migrate_url
    await execute(well.migrate_url, "REVOKE INSERT ON agent_messages FROM chatd_server")
    said = await doctor(well)
    assert (said.status, said.bad()) == (1, {"role": "FAILED"})
    assert said.found["role"][1] == "chatd_server has no right to agent_messages: INSERT"

    said = await doctor(well, database_url=well.migrate_url, migrate_url=None)
    assert (said.status, said.bad()) == (0, {"role": "warning"})
    assert "owns the tables" in said.found["role"][1]


async def test_files_that_others_may_read(well: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exposed, private = tmp_path / "exposed", tmp_path / "private"
    for name, file, mode in (("ANTHROPIC_API_KEY", exposed, 0o644), ("CHATD_AUDIT_KEY", private, 0o640)):
        file.write_text("k" * 32)
        file.chmod(mode)
        monkeypatch.setenv(f"{name}_FILE", str(file))
    said = await doctor(well)
    assert (said.status, said.bad()) == (0, {"ANTHROPIC_API_KEY": "warning"})
    assert said.advice("ANTHROPIC_API_KEY") == f"chmod o= {exposed}"
    exposed.chmod(0o600)
    assert (await doctor(well)).bad() == {}


async def test_the_data_directory_and_the_audit_key(well: Config, tmp_path: Path) -> None:
    said = await doctor(well, data_dir=Path("/proc/nowhere/chatd"))
    assert (said.status, said.bad()) == (1, {"data directory": "FAILED"})
    (tmp_path / "audit.key").write_text("short")
    (tmp_path / "audit.key").chmod(0o604)
    said = await doctor(well, data_dir=tmp_path)
    assert (said.status, said.bad()) == (1, {"audit key": "FAILED", "CHATD_AUDIT_KEY": "warning"})


async def test_room_for_connections_and_files(well: Config, durable: str) -> None:
    said = await doctor(well, db_pool=900, max_turns=1_000_000)
    assert (said.status, said.bad()) == (1, {"connections": "FAILED", "open files": "warning"})
    assert "901 are needed, 97 allowed" in said.found["connections"][1]
    conns = [await asyncpg.connect(durable) for _ in range(40)]
    said = await doctor(well, db_pool=70)
    assert (said.status, said.bad()) == (0, {"connections": "warning"})
    for conn in conns:
        await conn.close()


def test_room_on_the_disk() -> None:
    for free, embedded, own in (
        (1 << 20, "FAILED", "warning"),
        (500 << 20, "warning", "ok"),
        (5 << 30, "ok", "ok"),
    ):
        assert look_at_room("here", free, embedded=True).level == embedded
        assert look_at_room("here", free, embedded=False).level == own


async def test_a_check_that_takes_too_long() -> None:
    async def wait() -> Findings:
        await asyncio.sleep(30)
        yield Finding("all", "is well")

    output = io.StringIO()
    assert not await Report(output).run("all", 0.05, wait())
    assert output.getvalue().startswith("FAILED   all: not done within 0.05 s\n")


async def test_clocks_that_differ(dsn: str) -> None:
    async with open_repo(dsn, 1) as repo:
        state = await repo.inspect_server()
    assert look_at_clock(state).level == "ok"
    ahead = look_at_clock(replace(state, now=datetime.now(UTC) + timedelta(seconds=60)))
    assert (ahead.level, ahead.detail) == ("warning", "the database's is 60 s ahead of this host's")


@pytest.mark.parametrize(
    ("name", "off"), [("fsync", False), ("full_page_writes", False), ("synchronous_commit", "off")]
)
async def test_each_setting_that_loses_what_was_shown(dsn: str, name: str, off: Any) -> None:
    async with open_repo(dsn, 1) as repo:
        state = replace(await repo.inspect_server(), fsync=True)
    assert look_at_durability(state).level == "ok"
    found = look_at_durability(replace(state, **{name: off}))
    assert (found.level, found.advice) == ("FAILED", f"set {name} = on in postgresql.conf")


async def test_the_embedded_database(config: Config, tmp_path: Path) -> None:
    own = replace(config, database_url=None, data_dir=tmp_path / "data dir")
    said = await doctor(own)
    assert (said.status, said.bad()) == (0, {}), said.output
    assert not own.data_dir.exists()  # it only looks

    async with serving(ServerProcess(None, **environment(own))) as chat:
        await chat.post("hi")
        said = await doctor(own)
        assert (said.status, said.bad()) == (0, {}), said.output
        assert "PostgreSQL 18" in said.found["database"][1]
        await chat.post("hi again")

    said = await doctor(own)
    assert (said.status, said.bad()) == (0, {}), said.output
    assert "PostgreSQL 18" in said.found["database"][1]
    assert find_running(own.data_dir / "postgres") is None


async def test_the_local_model(config: Config, tmp_path: Path) -> None:
    local = replace(config, database_url=None, data_dir=tmp_path / "data", api_key=None, base_url=None)
    assert (await doctor(local)).found["model"][1].startswith("the local one answers in ")
    (tmp_path / "weights.gguf").write_text("no weights")
    said = await doctor(local, local_model=tmp_path / "weights.gguf")
    assert (said.status, said.bad()) == (1, {"model": "FAILED"})
    assert "does not start" in said.found["model"][1]
    said = await doctor(local, local_model=tmp_path / "no.gguf")
    assert (said.status, said.bad()) == (1, {"installed": "FAILED"})
    assert "CHATD_LOCAL_MODEL: there is no file" in said.found["installed"][1]
