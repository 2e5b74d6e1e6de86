"""An update by two processes: the next version starts, and migrates, beside the one that serves."""

import asyncio
import shutil
import signal
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from tests.chat_client import Chat
from tests.model_server import ModelServer, says
from tests.server_process import ServerProcess, serving
from tests.sse_client import read_all, text_of

ROOT = Path(__file__).parent.parent
MIGRATION = """
ALTER TABLE agent_turns ADD COLUMN note text, ADD COLUMN notes integer NOT NULL DEFAULT 0;
ALTER TABLE agent_sessions ADD COLUMN note text;
"""
RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from chatd.__main__ import main; main()"
PIECES = [f"p{n:03} " for n in range(400)]
# Seconds that a request may take that meets a migration: half a second behind each of two tries, and a machine at work;
# less than the three tries take together.
MOMENT = 4.0


class NextVersion(ServerProcess):
    """The server as it is, with a migration more."""

    def __init__(self, directory: Path, **environment: str) -> None:
        super().__init__(None, **environment)
        self.directory = directory
        shutil.copytree(ROOT / "chatd", directory / "chatd")
        shutil.copytree(ROOT / "sql", directory / "chatd" / "sql")
        (directory / "chatd" / "sql" / "migrations" / "9999_notes.sql").write_text(MIGRATION)

    def command(self) -> list[str]:
        return [sys.executable, "-c", RUN, str(self.directory), "serve"]


@pytest.fixture
def versions(dsn: str, tmp_path: Path, model: ModelServer) -> tuple[ServerProcess, NextVersion]:
    """Return a server, and the one that is to follow it."""
    settings = {"DATABASE_URL": dsn, "CHATD_DATA_DIR": str(tmp_path / "data"), "ANTHROPIC_BASE_URL": model.url}
    settings |= {"CHATD_DB_POOL": "4", "CHATD_DRAIN_TIMEOUT": "0.2"}
    return ServerProcess(None, **settings), NextVersion(tmp_path / "next", **settings)


async def slowest_post(chat: Chat, until: asyncio.Event) -> float:
    """Post until an event, and return the seconds that the slowest answer took."""
    slowest = 0.0
    while not until.is_set():
        begun = time.monotonic()
        await chat.post("short")
        slowest = max(slowest, time.monotonic() - begun)
    return slowest


async def test_the_next_version_starts_beside_one_that_streams(
    versions: tuple[ServerProcess, NextVersion], dsn: str, model: ModelServer
) -> None:
    first, second = versions
    reader = await asyncpg.connect(dsn)
    async with serving(first) as old:
        await old.post("the first one, which loads the SDK")
        model.play([says(*PIECES, delay=0.03)])
        async with old.streaming("long") as response:
            reading = asyncio.create_task(read_all(response))
            started = asyncio.Event()
            posting = asyncio.create_task(slowest_post(old, started))
            async with reader.transaction():
                await reader.execute("SELECT FROM agent_turns LIMIT 1")  # as a backup does, for long
                starting = asyncio.create_task(second.start())
                async with asyncio.timeout(30):
                    while second.log.count("a table is in use: trying again") < 3:
                        await asyncio.sleep(0.05)
            await starting
            started.set()
            assert await posting < MOMENT
            assert await reader.fetchval("SELECT notes FROM agent_turns LIMIT 1") == 0
            assert text_of(await reading) == "".join(PIECES)
        await old.post("again")
        model.play([says(*PIECES, delay=0.03)])
        accepted = await old.post("to be handed over", status=202, headers={"Prefer": "respond-async"})
        await first.end(signal.SIGTERM)
    async with asyncio.timeout(20):
        while await reader.fetchval("SELECT state FROM agent_turns WHERE id = $1", accepted["turn_id"]) == "running":
            await asyncio.sleep(0.05)
    await reader.close()
    assert await second.end(signal.SIGTERM) == 0
    assert "Traceback" not in first.log + second.log
