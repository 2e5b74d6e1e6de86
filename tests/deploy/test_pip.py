"""The other way to install it: pip, into /opt/chatd/venv, and the units from the repository."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deploy.hall import Hall, run
from tests.deploy.machine import Machine, booted
from tests.deploy.site import ROOT, Site, check_whole, configure, console
from tests.faults.counting_model import CountingModel

DOWNLOAD_TIMEOUT = 600.0  # seconds
TREE = ("chatd", "sql", "deploy", "setup.cfg", "pyproject.toml", "README.md", "chatd.service")
# As in docs/install.md, but that pip asks no index.
INSTALL = """
cd /source
python3 -m venv /opt/chatd/venv
/opt/chatd/venv/bin/pip install -q --no-index --find-links /wheels 'chatd[embedded,jwt,uvloop]'
install -m 644 -D deploy/chatd.sysusers /usr/lib/sysusers.d/chatd.conf && systemd-sysusers chatd.conf
install -m 644 chatd.service deploy/chatd.socket /etc/systemd/system/
install deploy/chatd-admin /usr/local/sbin/
install -m 700 -d /etc/chatd/credentials
install -m 600 deploy/chatd.env /etc/chatd/
install -m 644 deploy/nginx.conf /etc/nginx/sites-available/chatd
(umask 077; openssl rand -hex 32 > /etc/chatd/credentials/chatd_jwt_secret)
systemctl daemon-reload
"""


@pytest.fixture(scope="session")
async def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what pip installs from: it writes there."""
    copy = tmp_path_factory.mktemp("source")
    for name in TREE:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="session")
async def wheels(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return wheels of chatd and all that it needs, for Debian's Python: the machine has no way to an index."""
    directory = tmp_path_factory.mktemp("wheels")
    await run("/usr/bin/python3", "-m", "venv", str(directory / "venv"))
    pip = (str(directory / "venv/bin/pip"), "wheel", "-q", "--wheel-dir", str(directory))
    await run(*pip, f"{source}[embedded,jwt,uvloop]", timeout=DOWNLOAD_TIMEOUT)
    return directory


@pytest.fixture
async def debian(hall: Hall, source: Path, wheels: Path) -> AsyncIterator[Machine]:
    async with booted(hall, binds=[f"{source}:/source", f"{wheels}:/wheels"]) as machine:
        yield machine


async def test_it_starts_answers_and_is_updated_in_a_virtual_environment(debian: Machine, model: CountingModel) -> None:
    await debian.sh(INSTALL, timeout=DOWNLOAD_TIMEOUT)
    await configure(debian)
    await debian.sh("systemctl enable --now chatd.socket chatd.service")
    site = await Site(debian, "/opt/chatd/venv/bin/chatd", "/usr/local/sbin/chatd-admin").up()
    caller = site.caller()
    check_whole(await caller.ask(caller.question(count=20)))
    pid = await site.main_pid()
    assert (await debian.run("cat", f"/proc/{pid}/cmdline")).startswith("/opt/chatd/venv/bin/python")
    lines = console("install.md", "git pull\n# rm").splitlines()
    await debian.sh("cd /source\n" + "\n".join(line for line in lines if line.startswith(("install ", "systemctl "))))
    assert await site.main_pid() != pid
    check_whole(await caller.ask(caller.question(count=20)))
    await site.close()
