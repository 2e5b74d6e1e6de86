"""What Debian's and systemd's own checkers say of the package."""

from pathlib import Path

from tests.deploy.hall import run
from tests.deploy.machine import Machine

EXPOSURE = "15"  # tenths: 1.5 of 10


async def test_lintian_finds_nothing(package: Path) -> None:
    found = await run("lintian", "--allow-root", str(package), check=False, timeout=300)
    assert found.splitlines()[:20] == []


async def test_systemd_takes_the_units_and_their_sandbox_is_closed(machine: Machine) -> None:
    units = ("/lib/systemd/system/chatd.service", "/lib/systemd/system/chatd.socket")
    assert await machine.run("systemd-analyze", "verify", *units) == ""
    await machine.run("systemd-analyze", "security", f"--threshold={EXPOSURE}", "chatd.service")
