"""`chatd doctor`, and what it says."""

import io
import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from chatd.doctor.findings import Report
from chatd.errors import StartError
from tests.server_process import run

LINE = re.compile(r"(ok|\.\.\.|warning|FAILED) +([^:]+): (.*)")
WITHOUT_ADVICE = re.compile(r"^(?:warning|FAILED) .*\n(?! {9}\S)", re.MULTILINE)


class Said(NamedTuple):
    """The exit status; all that was printed; what was found, by what it is about: (level, detail)."""

    status: int
    output: str
    found: dict[str, tuple[str, str]]

    def bad(self) -> dict[str, str]:
        """Return what is not as it should be, and how bad that is."""
        return {what: level for what, (level, _) in self.found.items() if level not in {"ok", "..."}}

    def advice(self, what: str) -> str:
        lines = self.output.splitlines()
        return lines[next(i for i, line in enumerate(lines) if (m := LINE.match(line)) and m[2] == what) + 1].strip()


async def run_doctor(*arguments: str, **environment: str) -> Said:
    """Run the command."""
    return read(*await run("doctor", *arguments, **environment))


async def ask_doctor(check: Callable[[Report], Awaitable[None]]) -> Said:
    """Have it checked in this process: what a process takes to start would be most of the time."""
    output, status = io.StringIO(), 0
    report = Report(output)
    await check(report)
    try:
        report.finish()
    except StartError:
        status = 1
    return read(status, output.getvalue())


def read(status: int, output: str) -> Said:
    assert not WITHOUT_ADVICE.search(output), output
    assert "Traceback" not in output
    found = {match[2]: (match[1], match[3]) for line in output.splitlines() if (match := LINE.match(line))}
    return Said(status, output, found)
