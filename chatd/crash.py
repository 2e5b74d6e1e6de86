"""Crash points: places where the fault suite has the process killed. Nothing happens there unless one is armed."""

import os
import signal

armed: str | None = None
passes = 0  # that the armed point still survives


def arm(point: str | None) -> None:
    """Have the process killed at a point: `NAME`, or `NAME:N` for its N-th pass."""
    global armed, passes  # noqa: PLW0603 - a process dies once
    armed, _, count = (point or "").partition(":")
    passes = int(count or 1) - 1


def crash_point(name: str) -> None:
    """Die here, as by kill -9, if this point is armed."""
    global passes  # noqa: PLW0603
    if name != armed:
        return
    if passes == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    passes -= 1
