"""A second process on the host, word for word as docs/operation.md tells it."""

import asyncio
import re

import pytest

from tests.deploy.load import under_load
from tests.deploy.site import CREDENTIALS, OWN_POSTGRES, OWN_URL, ROOT, Site, check_whole, console
from tests.deploy.test_failures import begin

SITE = "/etc/nginx/sites-available/chatd"
BOTH = ("chatd", "chatd2")
BETWEEN = 2.0  # seconds
STATES = "systemctl is-active chatd.socket chatd.service chatd2.socket chatd2.service || true"


@pytest.fixture
async def two(site: Site) -> Site:
    """Return a site with two processes."""
    own = f"{OWN_POSTGRES}(umask 077; echo '{OWN_URL}' >{CREDENTIALS}/database_url)\nsystemctl restart chatd"
    await site.machine.sh(own)
    await site.machine.sh(console("operation.md", "cd /etc/systemd/system"))
    (line,) = re.findall(r"^ +server unix:.*$", (ROOT / "docs/operation.md").read_text(), re.MULTILINE)
    first = f"    server unix:/run/chatd/http.sock {line.split()[2]}\n"
    file = site.machine.path(SITE)
    assert first in file.read_text()
    file.write_text(file.read_text().replace(first, f"{first}{line}\n"))
    # Not a reload: the old worker would serve whoever comes just then once, and end the connection.
    await site.machine.sh("nginx -t && systemctl restart nginx")
    return site


async def pid(site: Site, unit: str) -> str:
    return await site.machine.show(unit, "MainPID")


async def test_both_answer_and_restart_one_after_the_other(two: Site) -> None:
    before = [await pid(two, unit) for unit in BOTH]
    async with under_load(two):
        for unit in BOTH:
            await asyncio.sleep(BETWEEN)
            await two.machine.run("systemctl", "restart", unit)
    assert not set(before) & {await pid(two, unit) for unit in BOTH}
    await two.ask()
    await two.ask()
    for socket in ("http", "http2"):
        metrics = await two.machine.sh(f"curl -s --unix-socket /run/chatd/{socket}.sock http://localhost/metrics")
        (begun,) = re.findall(r"^chatd_turns_begun_total (\S+)$", metrics, re.MULTILINE)
        assert float(begun) > 0


async def test_when_one_dies_the_other_goes_on(two: Site) -> None:
    asking = [await begin(two) for _ in range(2)]
    other = await pid(two, "chatd2")
    await two.machine.run("kill", "-KILL", await pid(two, "chatd"))
    for task, _ in asking:
        check_whole(await task)
    assert await two.restarts() == 1
    assert await pid(two, "chatd2") == other


async def test_both_are_stopped_and_started_at_once(two: Site) -> None:
    await two.machine.sh("systemctl stop chatd.socket chatd.service")
    assert set((await two.machine.sh(STATES)).split()) == {"inactive"}
    await two.machine.sh("systemctl start chatd.socket chatd.service")
    await two.machine.until("systemctl is-active chatd2.service && systemctl is-active chatd2.socket")
