"""Dumps and restores, and the ways elsewhere, word for word as docs/backup.md tells them."""

import re

from tests.deploy.hall import Hall
from tests.deploy.machine import booted
from tests.deploy.site import ENABLE_SITE, OWN_POSTGRES, OWN_URL, ROOT, Site, console, install

UNIT = "/etc/systemd/system/chatd-backup.service"
RESTORE_TIMEOUT = 120.0  # seconds
STOP = "systemctl stop chatd.socket chatd.service\n# "
RESTORE = console("backup.md", f"{STOP}mv")
PUT_BACK = console("backup.md", "install -o chatd")
TAKEN = "cd /root\n" + console("backup.md", "systemctl stop nginx")
BROUGHT = "cd /root\n" + console("backup.md", f"{STOP}rm")
AS_WRITTEN = "entries as they were written"


async def add_unit(site: Site) -> None:
    """Add the unit that makes a dump."""
    (unit,) = re.findall(r"```ini\n(\[Unit\]\n.*?)```", (ROOT / "docs/backup.md").read_text(), re.DOTALL)
    site.machine.path(UNIT).write_text(unit)
    await site.machine.sh("systemctl daemon-reload")


async def restore(site: Site) -> None:
    assert AS_WRITTEN in await site.machine.sh(RESTORE, timeout=RESTORE_TIMEOUT)


async def test_the_embedded_database_comes_back_from_the_dump_that_the_unit_makes(site: Site) -> None:
    kept = await site.ask()
    await add_unit(site)
    await site.machine.sh("systemctl start chatd-backup")
    lost = await site.ask()
    await restore(site)
    await site.check_kept(kept)
    await site.check_lost(lost)
    assert await site.machine.sh("find /var/lib/chatd ! -user chatd") == ""


async def test_with_another_key_it_is_not_started(site: Site) -> None:
    await site.ask()
    await site.machine.until("chatd-admin audit verify | grep '^audit: [1-9]'")
    await add_unit(site)
    await site.machine.sh("systemctl start chatd-backup; mv /var/lib/chatd/audit.key /root/")
    await site.machine.sh(f"mkdir /root/other; cd /root/other; openssl rand -hex 32 >audit.key; {PUT_BACK}")
    assert "signed with another key" in await site.machine.sh(RESTORE, check=False, timeout=RESTORE_TIMEOUT)
    assert await site.machine.show("chatd", "ActiveState") == "inactive"
    assert AS_WRITTEN in await site.machine.sh(f"cd /root; {PUT_BACK}\n{RESTORE.splitlines()[-1]}")
    await site.up()


async def test_it_moves_to_another_host(site: Site, hall: Hall, package_inside: str, binds: list[str]) -> None:
    kept = await site.ask()
    await add_unit(site)
    await site.machine.sh(TAKEN)
    async with booted(hall, binds=binds) as machine:
        await install(machine, package_inside)
        machine.path("/root/chatd.tar").write_bytes(site.machine.path("/root/chatd.tar").read_bytes())
        await machine.sh(BROUGHT)
        new = Site(machine)
        printed = await machine.sh(re.sub(r"(?m)^mv .*\n", "", RESTORE), timeout=RESTORE_TIMEOUT)
        assert AS_WRITTEN in printed
        await machine.sh(ENABLE_SITE)
        await new.up()
        await new.check_kept(kept)
        await new.ask()
        assert AS_WRITTEN in await machine.sh("chatd-admin audit verify")
        await new.close()


async def test_all_of_the_embedded_database_goes_into_one_of_your_own(site: Site) -> None:
    kept = await site.ask()
    await site.machine.sh(OWN_POSTGRES)
    assert AS_WRITTEN in await site.machine.sh(console("backup.md", "PROGRAMS="), timeout=RESTORE_TIMEOUT)
    await site.up()
    assert await site.machine.run("cat", "/etc/chatd/credentials/database_url") == OWN_URL
    assert "database: chatd at local socket" in await site.lines()
    await site.check_kept(kept)
    await site.ask()
