"""What stays when the package is removed, and that nothing does when it is purged."""

from tests.deploy.site import CREDENTIALS, ENV, Site, install

OF_CHATD = "find /etc /run /var -name '*chatd*' -not -path '/var/lib/dpkg/*' -not -path '/var/log/*'"


async def test_data_and_settings_stay_when_it_is_removed(site: Site, package_inside: str) -> None:
    caller = site.caller()
    asked = await caller.ask(caller.question(count=10))
    secret = await site.machine.run("cat", f"{CREDENTIALS}/chatd_jwt_secret")
    await site.machine.run("dpkg", "--remove", "chatd")
    assert await site.machine.sh("pgrep -u chatd || true") == ""
    assert await site.machine.sh("ls /lib/systemd/system/chatd.* /usr/lib/chatd 2>/dev/null || true") == ""
    assert "ANTHROPIC_BASE_URL" in await site.machine.run("cat", ENV)
    await install(site.machine, package_inside)
    await site.up()
    assert await site.machine.run("cat", f"{CREDENTIALS}/chatd_jwt_secret") == secret
    history = await site.get(f"/agent/chat/history/{asked.session_id}")
    assert history["messages"][-1]["content"] == asked.question.answer


async def test_nothing_stays_when_it_is_purged(site: Site) -> None:
    caller = site.caller()
    await caller.ask(caller.question(count=10))
    uid = await site.machine.run("id", "--user", "chatd")
    await site.machine.run("dpkg", "--purge", "chatd")
    assert await site.machine.run("pgrep", "-u", uid, check=False) == ""
    assert await site.machine.sh(OF_CHATD) == ""
    assert await site.machine.sh(f"find /etc /run /var /tmp /opt -uid {uid}") == ""
    assert await site.machine.sh("systemctl list-unit-files 'chatd*' --no-legend --full || true") == ""
    await site.machine.sh("nginx -t && systemctl restart nginx")
