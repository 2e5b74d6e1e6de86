"""chatd on a machine as its operator and its callers have it: installed, configured, behind nginx."""

import itertools
import json
from pathlib import Path
from typing import Any

from tests.chat_client import CHARACTER
from tests.deploy.machine import Machine
from tests.faults.clients import Caller, Transcript

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
