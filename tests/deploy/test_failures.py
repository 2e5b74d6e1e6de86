"""What goes wrong on a host: a process that hangs, one that is killed, a reboot, wrong settings."""

import asyncio

from tests.deploy.site import CREDENTIALS, ENV, OWN_POSTGRES, OWN_URL, URL, Site, check_whole, override
from tests.faults.clients import Transcript

LONG = {"count": 300, "pace": 20}
HANGS_AFTER = 3  # seconds; the unit has 20
STARTS = 3  # a minute, for callers who wait; the unit has more
POSTMASTERS = "ps -u chatd -o args= | grep -c '[p]ginstall/bin/postgres -D'"


async def begin(site: Site) -> tuple[asyncio.Task[Transcript], Transcript]:
    """Ask for a long answer, and return when some of it is there."""
    caller = site.caller()
    asking = asyncio.create_task(caller.ask(caller.question(**LONG)))
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while len(caller.transcripts[0].received) < 10:
            await asyncio.sleep(0.02)
    return asking, caller.transcripts[0]


async def test_a_process_that_hangs_is_replaced_and_its_turns_go_on(site: Site) -> None:
    await override(site.machine, "chatd.service", f"[Service]\nWatchdogSec={HANGS_AFTER}\n")
    pid = await site.main_pid()
    asking, transcript = await begin(site)
    await site.machine.run("kill", "-STOP", str(pid))
    check_whole(await asking)
    assert await site.restarts() == 1
    assert await site.main_pid() != pid
    assert transcript.longest_pause > HANGS_AFTER / 3
    assert any("Watchdog timeout" in entry["MESSAGE"] for entry in await site.journal())


async def test_a_process_that_is_killed_comes_back_with_one_postgres(site: Site) -> None:
    for killed in range(1, 4):
        asking, _ = await begin(site)
        await site.machine.run("kill", "-KILL", str(await site.main_pid()))
        check_whole(await asking)
        assert await site.restarts() == killed
        assert await site.machine.sh(POSTMASTERS) == "1"


async def test_after_a_reboot_the_history_is_there_and_a_turn_that_ran_goes_on(site: Site) -> None:
    caller = site.caller()
    ended = await caller.ask(caller.question(count=10))
    session = (await (await caller.session.post(f"{URL}/agent/session", json={"character_id": 7})).json())["session_id"]
    running = Transcript(caller.question(**LONG))
    body = {"message": str(running.question), "session_id": session, "character_id": 7}
    answer = await caller.session.post(f"{URL}/agent/chat", json=body, headers={"Prefer": "respond-async"})
    running.acknowledge(await answer.json())
    await asyncio.sleep(1)
    await site.machine.reboot()
    await site.machine.until("systemctl is-active chatd nginx")
    history = await site.get(f"/agent/chat/history/{ended.session_id}")
    assert [message["content"] for message in history["messages"]] == [str(ended.question), ended.question.answer]
    check_whole(await site.caller().read(running))


async def test_wrong_settings_are_told_in_a_line_and_not_tried_again_and_again(site: Site) -> None:
    settings = site.machine.path(ENV)
    right = settings.read_text()
    settings.write_text(f"{right}CHATD_HEARTBEAT=often\n")
    await site.machine.run("systemctl", "restart", "chatd", check=False)
    assert await complaints(site) == ["chatd: CHATD_HEARTBEAT: must be a number"]
    await asyncio.sleep(2)
    assert await site.machine.show("chatd", "ActiveState") == "failed"
    assert len(await complaints(site)) == 1
    settings.write_text(right)
    await site.machine.run("systemctl", "restart", "chatd")
    caller = site.caller()
    check_whole(await caller.ask(caller.question(count=10)))


async def test_callers_who_wait_for_a_service_with_wrong_settings_do_not_have_it_started_for_ever(site: Site) -> None:
    await override(site.machine, "chatd.socket", f"[Socket]\nTriggerLimitBurst={STARTS}\n")
    settings = site.machine.path(ENV)
    right = settings.read_text()
    settings.write_text(f"{right}CHATD_HEARTBEAT=often\n")
    await site.machine.run("systemctl", "restart", "chatd", check=False)
    async with asyncio.timeout(60), site.caller().session.get(f"{URL}/agent/sessions") as response:
        assert response.status == 502
        assert (await response.json(content_type=None))["code"] == "unavailable"
    assert 1 < len(await complaints(site)) <= STARTS + 1
    settings.write_text(right)
    await site.machine.run("systemctl", "restart", "chatd")
    assert await site.get("/healthz") == {"status": "ok"}


async def test_callers_wait_for_a_service_that_can_not_start_yet(site: Site) -> None:
    """As few starts a second as in the unit, in less time: the socket would be closed after five seconds."""
    await site.machine.sh(OWN_POSTGRES)
    owner = "cd /; runuser -u nobody -- psql -h /run/postgresql -c 'ALTER DATABASE chatd OWNER TO {}' postgres"
    await site.machine.sh(owner.format("nobody"))
    await override(site.machine, "chatd.socket", "[Socket]\nTriggerLimitBurst=3\nTriggerLimitIntervalSec=9\n")
    site.machine.path(f"{CREDENTIALS}/database_url").write_text(OWN_URL)
    await site.machine.run("systemctl", "restart", "--no-block", "chatd")
    await site.machine.until("systemctl show chatd --property=NRestarts --value | grep -v '^0$'")
    waiting = asyncio.create_task(site.get("/agent/sessions"))
    await asyncio.sleep(15)
    failed = [line for line in await site.lines() if "its role may not migrate" in line]
    assert len(failed) > 2
    assert await site.machine.show("chatd.socket", "ActiveState") == "active"
    assert not waiting.done()
    await site.machine.sh(owner.format("chatd"))
    assert await waiting == {"sessions": [], "next": None}


async def complaints(site: Site) -> list[str]:
    return [line for line in await site.lines() if "CHATD_HEARTBEAT" in line]
