"""What a check has found: told in a line when it is known, with another one that says what to do about it."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TextIO

from chatd.errors import ConfigError, StartError
from chatd.logs import describe, escape, root_of

OK, NOTE, WARNING, FAILED = "ok", "...", "warning", "FAILED"


@dataclass(frozen=True, slots=True)
class Finding:
    """`advice` is what to do about it."""

    what: str
    detail: str
    level: str = OK
    advice: str = ""

    def __str__(self) -> str:
        lines = [f"{self.level:<8} {self.what}: {self.detail}", f"{'':<8} {self.advice}" if self.advice else ""]
        return "".join(f"{escape(line)}\n" for line in lines if line)


Findings = AsyncGenerator[Finding, None]


def note(what: str, detail: str) -> Finding:
    """Return what is told of a check that takes long."""
    return Finding(what, detail, NOTE)


def warning(what: str, detail: str, advice: str) -> Finding:
    return Finding(what, detail, WARNING, advice)


def failed(what: str, detail: str, advice: str) -> Finding:
    return Finding(what, detail, FAILED, advice)


class Unexpected(Exception):
    """What ends a check: words for people, and what to do."""

    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.advice = advice


class Report:
    """Writes findings to `out` as they are made, and counts them."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.counts: Counter[str] = Counter()

    def tell(self, finding: Finding) -> None:
        self.counts[finding.level] += 1
        self.out.write(str(finding))
        self.out.flush()

    async def run(self, what: str, limit: float, findings: Findings) -> bool:
        """Tell what a check finds, within `limit` seconds; False where something has failed."""
        before = self.counts[FAILED]
        try:
            async with asyncio.timeout(limit) as deadline, aclosing(findings):
                async for finding in findings:
                    self.tell(finding)
        except TimeoutError:
            detail = f"not done within {limit:g} s" if deadline.expired() else "no answer in time"
            self.tell(failed(what, detail, "see what it waits for, and try again"))
        except Unexpected as error:
            self.tell(failed(what, str(error), error.advice))
        except (ConfigError, StartError) as error:
            self.tell(failed(what, str(error), "mend this, or the setting that it names, and try again"))
        except PermissionError as error:
            self.tell(failed(what, describe(error), "run this as the user that runs chatd"))
        except Exception as error:  # noqa: BLE001 - whatever a check meets, the others are made
            self.tell(failed(what, describe(root_of(error)), "see what the server and the proxy have logged"))
        return self.counts[FAILED] == before

    def finish(self) -> None:
        """Raise StartError where something has failed."""
        counts = ", ".join(f"{self.counts[level]} {level}" for level in (OK, WARNING, FAILED))
        if self.counts[FAILED]:
            raise StartError(f"doctor: {counts}")
        self.out.write(f"{'':<8} {counts}\n")
