"""The embedded PostgreSQL: its life, whoever dies and wherever it lives."""

import asyncio
import os
import shutil
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest

from chatd.config import Config
from chatd.database import reach_database
from chatd.embedded import INITDB, Postgres, find_binaries, open_postgres
from chatd.embedded_directory import find_running, is_alive, place_sockets
from chatd.errors import ConfigError, StartError

OWNER = """
import asyncio, sys
from pathlib import Path
from chatd.embedded import open_postgres
async def main():
    async with open_postgres(Path(sys.argv[1])):
        print("up", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""

SLOW_RECOVERY = ("restore_command=sleep 1; false", "hot_standby=off")  # several files are asked for
OF_ANOTHER = {
    **{"PGPORT": "5433", "PGHOST": "db.example", "PGUSER": "other", "PGDATABASE": "other", "PGDATA": "/nonexistent"},
    **{"PGDATESTYLE": "nonsense", "PGTZ": "nonsense", "PGSSLMODE": "verify-full", "PGOPTIONS": "-c nonsense=1"},
    **{"PGTARGETSESSIONATTRS": "standby", "PGPASSWORD": "x", "PGPASSFILE": "/nonexistent"},
}
HIDDEN = """
import ctypes, time
ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE
print("up", flush=True)
time.sleep(60)
"""
LOOK = """
import sys
from pathlib import Path
from chatd.embedded_directory import is_alive, stands_in
pid, data = int(sys.argv[1]), Path(sys.argv[2])
print(is_alive(pid, data), stands_in(pid, data))
"""


def modes(path: Path) -> list[int]:
    return [stat.S_IMODE(parent.stat().st_mode) for parent in path.parents]


async def write(dsn: str, value: int) -> list[int]:
    """Add a value and return all of them."""
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        await conn.execute("INSERT INTO kept VALUES ($1)", value)
        return [row["value"] for row in await conn.fetch("SELECT value FROM kept ORDER BY value")]
    finally:
        await conn.close()


@pytest.mark.parametrize("name", ["plain", "o space, é & 'q' \"x\" $HOME %s", "long" * 30])
async def test_any_path_will_do_and_nothing_is_opened_to_others(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    tmp_path.chmod(0o700)
    before = modes(directory)
    assert find_running(directory) is None
    async with open_postgres(directory) as dsn:
        assert find_running(directory) == dsn
        assert await write(dsn, 1) == [1]
        conn = await asyncpg.connect(dsn)
        assert await conn.fetchval("SHOW listen_addresses") == ""
        assert await conn.fetchval("SHOW fsync") == "on"
        await conn.close()
    async with open_postgres(directory) as dsn:
        assert await write(dsn, 2) == [1, 2]
    assert find_running(directory) is None
    assert modes(directory) == before
    assert stat.S_IMODE((directory / "pgdata").stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_what_chatd_is_refused_does_not_fill_the_log(tmp_path: Path) -> None:
    async with reach_database(Config(data_dir=tmp_path), sharing=False) as own:
        log = tmp_path / "postgres" / "postgres.log"
        size = log.stat().st_size
        async with reach_database(Config(data_dir=tmp_path), sharing=True) as shared:
            for dsn in (own, shared):
                await fail_and_checkpoint(dsn)
        assert size == log.stat().st_size > 0
        await fail_and_checkpoint(find_running(tmp_path / "postgres") or "")
        assert "division by zero" in log.read_text()


async def fail_and_checkpoint(dsn: str) -> None:
    conn = await asyncpg.connect(dsn)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await conn.execute("SELECT 1 / 0")
    await conn.execute("CHECKPOINT")
    await conn.close()


async def test_the_programs_may_lie_in_a_home_that_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    package = find_binaries().parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, home / part.name, symlinks=True)
    monkeypatch.setattr("chatd.embedded.find_binaries", lambda: home / package.name / "pginstall" / "bin")
    async with open_postgres(home / "data") as dsn:
        assert await write(dsn, 1) == [1]


async def test_a_new_cluster_outlasts_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    async with open_postgres(tmp_path):
        assert synced == [tmp_path]


async def test_settings_of_another_one_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_ANOTHER.items():
        monkeypatch.setenv(name, value)
    async with open_postgres(tmp_path) as dsn:
        assert await write(dsn, 1) == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("made", ["", "postgres"])
async def test_root_makes_and_opens_nothing_that_belongs_to_another_user(tmp_path: Path, made: str) -> None:
    data = tmp_path / "data"
    (data / made).mkdir(parents=True)
    os.chown(data / made, 65534, 65534)
    before = sorted(data.rglob("*"))
    with pytest.raises(ConfigError, match=f"{data / made} belongs to nobody.*chatd-admin.*runuser -u nobody -- "):
        await open_postgres(data / "postgres").__aenter__()
    assert sorted(data.rglob("*")) == before


async def test_root_finds_the_one_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "o space"
    async with open_postgres(directory) as dsn:
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        assert find_running(directory) == dsn
        place_sockets(directory).chmod(0o755)
        with pytest.raises(StartError, match="is not a private directory"):
            find_running(directory)


async def owner(directory: Path) -> asyncio.subprocess.Process:
    return await printing_up(OWNER, str(directory))


async def printing_up(program: str, *arguments: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *arguments), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    return process


def postmaster(directory: Path) -> int:
    return int((directory / "pgdata" / "postmaster.pid").read_text().split()[0])


async def test_a_killed_owner_takes_it_along_and_it_starts_again_at_once(tmp_path: Path) -> None:
    async with open_postgres(tmp_path) as dsn:
        await write(dsn, 1)
    process = await owner(tmp_path)
    pid = postmaster(tmp_path)
    process.send_signal(signal.SIGKILL)
    async with open_postgres(tmp_path) as dsn:
        assert await write(dsn, 2) == [1, 2]
    assert not is_alive(pid, tmp_path / "pgdata")
    await process.wait()

    process = await owner(tmp_path)
    pid = postmaster(tmp_path)
    process.kill()
    async with asyncio.timeout(5):
        while is_alive(pid, tmp_path / "pgdata"):
            await asyncio.sleep(0.02)
    await process.wait()


async def test_a_killed_postmaster_is_started_again_at_once(tmp_path: Path) -> None:
    async with open_postgres(tmp_path) as dsn:
        await write(dsn, 1)
    process = await owner(tmp_path)
    os.kill(postmaster(tmp_path), signal.SIGKILL)
    process.kill()
    async with open_postgres(tmp_path) as dsn:
        assert await write(dsn, 2) == [1, 2]
    await process.wait()


async def start_once(directory: Path) -> int:
    async with open_postgres(directory):
        return postmaster(directory)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_none_is_started_beside_one_that_still_ends_where_it_can_not_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await owner(tmp_path)
    with frozen(pid := postmaster(tmp_path)):
        process.kill()
        await process.wait()
        for name in ("is_alive", "stands_in"):
            monkeypatch.setattr(f"chatd.embedded.{name}", lambda *_: False)
        starting = asyncio.create_task(start_once(tmp_path))
        await asyncio.wait([starting], timeout=1)
        assert (starting.done(), postmaster(tmp_path)) == (False, pid)
    assert await starting != pid


async def test_none_is_started_beside_a_backend_that_outlives_its_postmaster(tmp_path: Path) -> None:
    process = await owner(tmp_path)
    conn = await asyncpg.connect(find_running(tmp_path))
    try:
        with frozen(conn.get_server_pid()):
            os.kill(pid := postmaster(tmp_path), signal.SIGKILL)
            process.kill()
            await process.wait()
            starting = asyncio.create_task(start_once(tmp_path))
            await asyncio.wait([starting], timeout=3)
            assert (starting.done(), postmaster(tmp_path)) == (False, pid)
        assert await starting != pid
    finally:
        conn.terminate()


async def test_one_that_can_not_be_looked_at_may_be_it(tmp_path: Path) -> None:
    process = await printing_up(HIDDEN)
    blind = ("setpriv", "--bounding-set=-sys_ptrace") if os.geteuid() == 0 else ()
    looking = await asyncio.create_subprocess_exec(
        *(*blind, sys.executable, "-c", LOOK, str(process.pid), str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    told, _ = await looking.communicate()
    process.kill()
    await process.wait()
    assert told == b"True None\n"
    assert not is_alive(process.pid, tmp_path)


async def test_one_that_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_postgres(tmp_path):
        pid = postmaster(tmp_path)
        monkeypatch.setattr("chatd.embedded.START_TIMEOUT", 0.1)
        monkeypatch.setattr("chatd.embedded.stands_in", lambda *_: None)
        with pytest.raises(StartError, match=f"another PostgreSQL still runs on {tmp_path}/pgdata.*process {pid}"):
            await Postgres(tmp_path, tmp_path).start(())


async def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    async with open_postgres(tmp_path) as dsn:
        with pytest.raises(StartError, match="another chatd runs on"):
            await open_postgres(tmp_path).__aenter__()
        await write(dsn, 1)


@pytest.mark.parametrize("pid", [str(os.getpid()), "1", "999999", ""])
async def test_a_stale_pid_file_is_no_obstacle(tmp_path: Path, pid: str) -> None:
    async with open_postgres(tmp_path) as dsn:
        await write(dsn, 1)
    (tmp_path / "pgdata" / "postmaster.pid").write_text(f"{pid}\n{tmp_path / 'pgdata'}\n")
    async with open_postgres(tmp_path) as dsn:
        assert await write(dsn, 2) == [1, 2]


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4])
async def test_an_interrupted_initdb_is_made_again(tmp_path: Path, delay: float) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWNER, str(tmp_path)), stdout=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(10):
        while not list(tmp_path.glob("pgdata.init-*")):
            await asyncio.sleep(0.01)
    await asyncio.sleep(delay)
    process.kill()
    await process.wait()
    async with open_postgres(tmp_path) as dsn:
        assert await write(dsn, 1) == [1]


async def test_a_recovery_takes_as_long_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_postgres(tmp_path) as dsn:
        await write(dsn, 1)
    (tmp_path / "pgdata" / "recovery.signal").touch()
    monkeypatch.setattr("chatd.embedded.START_TIMEOUT", 1)
    async with open_postgres(tmp_path, SLOW_RECOVERY) as dsn:
        assert await write(dsn, 2) == [1, 2]


async def test_one_that_is_given_up_is_shut_down(tmp_path: Path) -> None:
    async with open_postgres(tmp_path):
        pass
    (tmp_path / "pgdata" / "recovery.signal").touch()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), open_postgres(tmp_path, SLOW_RECOVERY):
            pytest.fail("it is up")
    assert not (tmp_path / "pgdata" / "postmaster.pid").exists()


async def test_what_can_not_start_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_postgres(tmp_path):
        pass
    (tmp_path / "pgdata/global/pg_control").unlink()
    with pytest.raises(StartError, match=r"does not start: see .*postgres\.log$"):
        await open_postgres(tmp_path).__aenter__()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 << 20))
    with pytest.raises(StartError, match=r"postgres\.log \(only 3 MiB are free there\)$"):
        await open_postgres(tmp_path).__aenter__()


async def test_a_cluster_of_another_version_takes_another_chatd(tmp_path: Path) -> None:
    async with open_postgres(tmp_path):
        pass
    (tmp_path / "pgdata" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(ConfigError, match=r"was made by PostgreSQL 9\.6, .*docs/backup\.md"):
        await open_postgres(tmp_path).__aenter__()


async def test_without_setpriv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shutil.which("setpriv") is None
    assert INITDB
    with pytest.raises(ConfigError, match="util-linux"):
        await Postgres(tmp_path, tmp_path).start(())
