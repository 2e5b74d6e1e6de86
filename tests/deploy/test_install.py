"""From a bare Debian to an answer, and what the service is then."""

import json
import re

from chatd.variables import SECRETS
from tests.deploy.machine import Machine
from tests.deploy.site import API_KEY, CREDENTIALS, ENV, URL, Site, check_whole, configure, install, told
from tests.faults.counting_model import CountingModel

PRIORITIES = {"error": "3", "warning": "4", "info": "6"}


async def test_a_fresh_install_tells_what_it_lacks_and_answers_once_it_has_it(
    bare: Machine, model: CountingModel, package_inside: str
) -> None:
    told_by_dpkg = await install(bare, package_inside)
    assert "/etc/chatd/credentials/anthropic_api_key" in told_by_dpkg
    assert await bare.show("chatd", "ActiveState") == "failed"
    assert await bare.show("chatd", "NRestarts") == "0"
    site = Site(bare)
    (line,) = await site.lines()
    assert line.startswith("chatd: no model: set ANTHROPIC_API_KEY")
    await configure(bare)
    await bare.run("systemctl", "restart", "chatd")
    await site.up()
    assert await site.get("/healthz") == {"status": "ok"}
    caller = site.caller()
    check_whole(await caller.ask(caller.question(count=20)))
    check_whole(await caller.ask(caller.question(count=20), stream=False))
    await site.close()


async def test_without_a_token_nobody_gets_in(site: Site) -> None:
    async with site.caller().session.get(f"{URL}/agent/sessions", headers={"Authorization": ""}) as response:
        assert response.status == 401


async def test_systemd_knows_how_it_is(site: Site) -> None:
    assert await site.machine.show("chatd", "Type") == "notify"
    assert await site.machine.show("chatd", "WatchdogUSec") == "20s"
    await site.machine.until("systemctl show chatd --property=StatusText --value | grep .")
    for unit in ("chatd.service", "chatd.socket"):
        assert await site.machine.run("systemctl", "is-enabled", unit) == "enabled"


async def test_it_runs_as_a_user_of_its_own_with_no_rights(site: Site) -> None:
    pid = await site.main_pid()
    assert await site.machine.run("stat", "--format=%U:%G", f"/proc/{pid}") == "chatd:chatd"
    status = dict(line.split(":\t", 1) for line in (await site.machine.run("cat", f"/proc/{pid}/status")).splitlines())
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


async def test_it_can_write_nothing_but_its_data_and_sees_no_home(site: Site) -> None:
    await site.machine.sh("mkdir /home/alice && echo dear > /home/alice/letter && echo dear > /tmp/letter")
    seen = f"nsenter --target={await site.main_pid()} --mount -- "
    for directory in ("/etc", "/usr", "/var", "/opt", "/srv"):
        assert "Read-only file system" in await site.machine.sh(f"{seen} touch {directory}/written", check=False)
    for letter in ("/home/alice/letter", "/tmp/letter"):
        assert "No such file" in await site.machine.sh(f"{seen} cat {letter}", check=False)
    assert await site.machine.sh(f"{seen} touch /var/lib/chatd/written /tmp/written") == ""
    assert await site.machine.sh("stat --format=%a /var/lib/chatd") == "700"


async def test_its_metrics_tell_of_the_process_in_its_sandbox(site: Site) -> None:
    exposed = await site.machine.sh("curl --silent --unix-socket /run/chatd/http.sock http://localhost/metrics")
    told_of = set(re.findall(r"^process_\w+", exposed, re.MULTILINE))
    assert {"process_start_time_seconds", "process_open_fds", "process_max_fds"} <= told_of


async def test_secrets_are_in_no_environment_and_nothing_that_is_told(site: Site) -> None:
    secrets = [API_KEY, await site.machine.run("cat", f"{CREDENTIALS}/chatd_jwt_secret")]
    told_of = await site.machine.sh(
        "systemctl show chatd; systemctl status chatd; journalctl; cat /var/log/nginx/*;"
        "for pid in $(pgrep -u chatd); do tr '\\0' '\\n' </proc/$pid/environ; tr '\\0' ' ' </proc/$pid/cmdline; done",
        check=False,
    )
    assert "CREDENTIALS_DIRECTORY=" in told_of
    assert "listening on" in told_of
    assert not [secret for secret in secrets if secret in told_of]
    assert not [name for name in SECRETS if f"\n{name}=" in told_of]
    modes = await site.machine.sh(f"stat --format=%U:%a {ENV} {CREDENTIALS} {CREDENTIALS}/*")
    assert modes.splitlines() == ["root:600", "root:700", "root:600", "root:600"]


async def test_the_journal_has_its_lines_with_their_priorities(site: Site) -> None:
    await site.machine.sh("pkill -KILL --oldest -u chatd -f 'pginstall/bin/postgres -D'")  # an error is logged
    await site.machine.until("journalctl -u chatd | grep 'starting it again'")
    entries = [entry for entry in await site.journal() if entry["MESSAGE"].startswith("{")]
    levels = {json.loads(entry["MESSAGE"])["level"] for entry in entries}
    assert {"info", "error"} <= levels
    for entry in entries:
        assert entry["PRIORITY"] == PRIORITIES[json.loads(entry["MESSAGE"])["level"]], told(entry)
