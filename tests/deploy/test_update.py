"""Updates and restarts while callers go on: none of them is refused, cut off, or told anything wrong."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.deploy.hall import run
from tests.deploy.load import under_load
from tests.deploy.site import Site, console, inside, install
from tests.deploy.test_backup import add_unit, restore

NEXT = "99.1"
MIGRATION = "9999_next.sql"
RESTARTS = 4
BETWEEN = 2.0  # seconds


@pytest.fixture(scope="session")
async def next_package(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same package as a later version, which tells its number and has a migration more."""
    tree = tmp_path_factory.mktemp("next") / "tree"
    await run("dpkg-deb", "--raw-extract", str(package), str(tree))
    replace(tree / "DEBIAN/control", r"(?m)^Version: .*", f"Version: {NEXT}")
    replace(tree / "usr/lib/chatd/chatd/__init__.py", r'__version__ = ".*"', f'__version__ = "{NEXT}"')
    (tree / "usr/lib/chatd/chatd/sql/migrations" / MIGRATION).write_text("CREATE TABLE agent_next ()")
    built = package.parent / "next-chatd.deb"
    await run("dpkg-deb", "--root-owner-group", "--build", "-Zgzip", "-z1", str(tree), str(built), timeout=120)
    return built


def replace(path: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, path.read_text())
    assert count == 1
    path.write_text(changed)


async def test_an_update_fails_no_request_and_breaks_no_answer(next_package: Path, site: Site) -> None:
    before = await site.main_pid()
    async with under_load(site) as load:
        await asyncio.sleep(BETWEEN)
        await install(site.machine, inside(next_package))
        assert (await site.get("/openapi.json"))["info"]["version"] == NEXT
        answered = load.answered
        await asyncio.sleep(BETWEEN)
    assert await site.main_pid() != before
    assert load.answered > answered > 0
    assert any(transcript.connections > 1 for transcript in load.transcripts)


async def test_restarts_fail_no_request_and_break_no_answer(site: Site) -> None:
    pids = {await site.main_pid()}
    async with under_load(site):
        for _ in range(RESTARTS):
            await asyncio.sleep(BETWEEN)
            await site.machine.run("systemctl", "restart", "chatd")
            pids.add(await site.main_pid())
    assert len(pids) == RESTARTS + 1


async def test_the_way_back_is_the_old_package_and_the_dump(
    next_package: Path, package_inside: str, site: Site
) -> None:
    kept = await site.ask()
    await add_unit(site)
    await site.machine.sh("systemctl start chatd-backup")
    await install(site.machine, inside(next_package))
    since = await site.ask()
    await site.machine.sh("chatd-admin export >/root/chatd.jsonl")
    back = console("upgrades.md", "apt-get").partition("\n")[0]
    await site.machine.sh(re.sub(r"/root/\S+", package_inside, back))
    await site.machine.until("systemctl is-failed chatd")
    assert f"chatd: the database is newer than this program: it has {MIGRATION}" in await site.lines()
    await restore(site)
    await site.check_kept(kept)
    await site.check_lost(since)
    await site.machine.sh("chatd-admin import </root/chatd.jsonl")
    await site.check_kept(since)
    await site.ask()
