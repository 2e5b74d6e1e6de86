"""The embedded database's dump and restore, word for word as docs/backup.md tells them."""

import re
from datetime import UTC, datetime

from tests.deploy.conftest import ROOT
from tests.deploy.site import Site, check_whole

UNIT = "/etc/systemd/system/chatd-backup.service"
RESTORE_TIMEOUT = 120.0  # seconds


def told(language: str, begin: str) -> str:
    """Return what stands in the first block of the document that begins so."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/backup.md").read_text(), re.DOTALL)
    return next(block for block in blocks if block.startswith(begin))


def commands(block: str) -> str:
    """Return the commands of a block, with today's dump."""
    lines = [line.removeprefix("# ") for line in block.splitlines() if line.startswith("# ")]
    return "\n".join(lines).replace("2026-11-25", f"{datetime.now(UTC):%F}")


async def test_the_embedded_database_comes_back_from_the_dump_that_the_unit_makes(site: Site) -> None:
    caller = site.caller()
    kept = await caller.ask(caller.question(count=10))
    check_whole(kept)
    site.machine.path(UNIT).write_text(told("ini", "[Unit]"))
    await site.machine.sh("systemctl daemon-reload; systemctl start chatd-backup")
    lost = await caller.ask(caller.question(count=10))
    printed = await site.machine.sh(commands(told("console", "# systemctl stop")), timeout=RESTORE_TIMEOUT)
    assert "entries as they were written" in printed
    history = await site.get(f"/agent/chat/history/{kept.session_id}")
    assert history["messages"][-1]["content"] == kept.question.answer
    async with site.caller().session.get(f"http://127.0.0.1/agent/chat/history/{lost.session_id}") as response:
        assert response.status == 404
    assert await site.machine.sh("find /var/lib/chatd ! -user chatd") == ""
