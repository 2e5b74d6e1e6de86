"""The units and what belongs to them, as systemd's own tools read them."""

import configparser
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from chatd.config import read_config
from chatd.variables import SECRETS, VARIABLES

ROOT = Path(__file__).parent.parent
SERVICE = ROOT / "chatd.service"
UNITS = (SERVICE, ROOT / "deploy/chatd.socket")
ENVIRONMENT = ROOT / "deploy/chatd.env"
MAX_EXPOSURE = 1.5
# What a command of root's has in common with the service.
SAME = (
    *("User", "Group", "UMask", "KillMode"),
    *("Environment", "EnvironmentFile", "StateDirectory", "StateDirectoryMode"),
)


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def directives(unit: Path) -> list[tuple[str, str]]:
    lines = (line.partition("=") for line in unit.read_text().splitlines() if re.match("[A-Z]", line))
    return [(name, value) for name, _, value in lines]


def values(unit: Path, directive: str) -> list[str]:
    return [value for name, value in directives(unit) if name == directive]


def copy_units(directory: Path) -> list[Path]:
    """Copy the units, with a program in place of chatd that is there."""
    for unit in UNITS:
        (directory / unit.name).write_text(unit.read_text().replace("/opt/chatd/venv/bin/chatd", sys.executable))
    return sorted(directory.iterdir())


def test_systemd_finds_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    verified = systemd_analyze("verify", *copy_units(tmp_path))
    assert (verified.returncode, verified.stdout) == (0, "")


def test_a_mistake_would_be_found(tmp_path: Path) -> None:
    service, socket = copy_units(tmp_path)
    service.write_text(service.read_text().replace("WatchdogSec=20", "WatchdogSecs=20"))
    assert "WatchdogSecs" in systemd_analyze("verify", service, socket).stdout


def test_the_sandbox_is_tight() -> None:
    rated = systemd_analyze("security", "--offline=yes", SERVICE).stdout
    exposure = re.search(r"Overall exposure level for chatd.service: ([\d.]+)", rated)
    assert exposure is not None, rated
    assert float(exposure[1]) <= MAX_EXPOSURE


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_directive_has_its_reason_above_it(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    bare = [line for above, line in pairwise(lines) if line[:1].isupper() and above[:1] != "#"]
    assert directives(unit)
    assert not bare


def test_every_secret_of_the_server_is_a_credential_that_may_be_missing() -> None:
    names = [secret.lower() for secret in SECRETS if secret != "CHATD_TOKEN"]  # with which `chatd doctor URL` asks
    assert sorted(values(SERVICE, "LoadCredential")) == sorted(f"{n}:/etc/chatd/credentials/{n}" for n in names)
    assert sorted(values(SERVICE, "SetCredential")) == sorted(rf"{n}:\n" for n in names)


def test_root_gets_the_command_that_the_service_is_with_every_secret() -> None:
    admin = (ROOT / "deploy/chatd-admin").read_text()
    (names,) = re.findall(r"^for name in (.*); do$", admin, re.MULTILINE)
    assert sorted(names.split()) == sorted(secret.lower() for secret in SECRETS)
    for directive in SAME:
        assert re.findall(rf"--property={directive}=(\S+)", admin) == values(SERVICE, directive)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_for_anybody_but_root_it_says_that_it_is_roots() -> None:
    command = ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-s", "doctor"]
    with (ROOT / "deploy/chatd-admin").open() as script:
        refused = subprocess.run(command, check=False, stdin=script, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("chatd-admin: only root")


def test_the_settings_file_names_settings_and_no_secrets() -> None:
    named = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", ENVIRONMENT.read_text(), re.MULTILINE))
    assert named.keys() <= VARIABLES.keys() - set(SECRETS)
    assert read_config(named).jwt_jwks_url == named["CHATD_JWT_JWKS_URL"]


def test_the_settings_file_asks_for_tokens_and_leaves_the_rest_as_it_is() -> None:
    lines = ENVIRONMENT.read_text().splitlines()
    assert [line for line in lines if line and line[0] != "#"] == ["CHATD_AUTH=jwt"]


def test_the_package_takes_extras_that_there_are() -> None:
    rules = (ROOT / "deploy/debian/rules").read_text()
    extras = re.findall(r"^EXTRAS := (.*)$", rules, re.MULTILINE)[0].split(",")
    known = configparser.ConfigParser()
    known.read(ROOT / "setup.cfg")
    assert set(extras) <= known["options.extras_require"].keys()


def test_a_secret_that_there_was_no_room_for_is_made_again(tmp_path: Path) -> None:
    text = (ROOT / "deploy/debian/postinst").read_text()
    (function,) = re.findall(r"^make_secret\(\) {.*?^}$", text, re.MULTILINE | re.DOTALL)
    secret = tmp_path / "chatd_jwt_secret"
    script = f"set -e\n{function}\nmake_secret\n".replace("/etc/chatd/credentials", str(tmp_path))
    assert subprocess.run(["sh", "-c", f"ulimit -f 0\n{script}"], check=False).returncode
    made = []
    for _ in range(2):
        subprocess.run(["sh", "-c", script], check=True)
        made.append(secret.read_text())
    assert re.fullmatch("[0-9a-f]{64}", made[0])
    assert made[0] == made[1]
    assert [(path, path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == [(secret, 0o600)]


def test_the_service_takes_its_socket_from_where_nginx_looks() -> None:
    (path,) = values(ROOT / "deploy/chatd.socket", "ListenStream")
    assert f"server unix:{path} " in (ROOT / "deploy/nginx.conf").read_text()
