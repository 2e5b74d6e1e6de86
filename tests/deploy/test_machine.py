"""The machines themselves: what the other tests rely on."""

from pathlib import Path

import pytest

from tests.deploy.hall import Hall, run
from tests.deploy.machine import booted


async def test_a_machine_has_a_systemd_of_its_own_and_keeps_its_files_over_a_reboot(hall: Hall) -> None:
    async with booted(hall) as machine:
        assert await machine.run("cat", "/proc/1/comm") == "systemd"
        assert await machine.run("systemctl", "is-system-running") == "running"
        await machine.sh("echo kept > /etc/kept; echo gone > /run/gone")
        leader = machine.leader
        await machine.reboot()
        assert machine.leader != leader
        assert await machine.sh("cat /etc/kept") == "kept"
        assert await machine.sh("test -e /run/gone || echo gone") == "gone"


async def test_nothing_is_written_on_this_machine_and_nothing_is_left_of_a_test_that_fails(hall: Hall) -> None:
    with pytest.raises(ZeroDivisionError):
        async with booted(hall) as machine:
            await machine.sh("echo here > /etc/chatd-was-here; sleep 1000 >/dev/null 2>&1 &")
            1 / 0  # noqa: B018
    assert machine.process is not None and machine.process.returncode is not None
    assert not Path("/etc/chatd-was-here").exists()
    assert not (hall.cgroups / machine.name).exists()
    assert machine.root not in Path(f"/proc/{hall.holder.pid}/mounts").read_text()
    assert str(hall.directory) not in Path("/proc/self/mounts").read_text()


async def test_a_machine_can_be_based_on_what_was_written_on_another_one(hall: Hall) -> None:
    async with booted(hall) as first:
        await first.sh("echo one > /etc/one")
        await first.power_off()
    for _ in range(2):
        async with booted(hall, [first.upper]) as second:
            assert await second.sh("cat /etc/one; ls /etc/two 2>/dev/null || echo no two") == "one\nno two"
            await second.sh("echo two > /etc/two")


async def test_its_network_has_no_way_out(hall: Hall) -> None:
    interfaces = await run(*hall.inside("ip", "-brief", "link"))
    assert [line.split()[0] for line in interfaces.splitlines()] == ["lo"]
