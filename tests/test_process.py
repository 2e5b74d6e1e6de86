"""The real thing: a process with an embedded database, killed, started again, stopped."""

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from chatd import __version__
from chatd.database import is_for_good
from tests.chat_client import Chat
from tests.model_server import Exchange, ModelServer, says
from tests.server_process import ServerProcess, run, serving
from tests.sse_client import events, read_all, text_of
from tests.test_transfer import HEADER


@pytest.fixture
async def server(tmp_path: Path, model: ModelServer) -> AsyncIterator[ServerProcess]:
    server = ServerProcess(CHATD_DATA_DIR=str(tmp_path / "data dir"), ANTHROPIC_BASE_URL=model.url)
    yield server
    await server.kill()


async def test_after_a_kill_everything_is_there_and_the_turn_goes_on(server: ServerProcess, model: ModelServer) -> None:
    pieces = [f"t{n:03} " for n in range(200)]
    model.play([says("first"), says(*pieces, delay=0.01)])
    async with serving(server) as chat:
        session = (await chat.post("one"))["session_id"]
        async with chat.streaming("two", session) as response:
            seen = []
            async for event in events(response):
                seen.append(event)
                if len(seen) == 50:
                    break
            await server.end(signal.SIGKILL)

    async with serving(server) as chat:
        rest = await chat.attach(session, seen[-1].id)
        history = await chat.history(session)
    role, continued = model.requests[-1].messages[-1]
    assert role == "assistant"
    assert continued.startswith(text_of(seen).strip())
    text = text_of([*seen, *rest])
    assert text == "".join(pieces)[: len(text) - len("Hello, world.")] + "Hello, world."
    assert [event.seq for event in [*seen, *rest]] == list(range(1, len(seen) + len(rest) + 1))
    assert [m["content"] for m in history["messages"]] == ["one", "first", "two", text]
    assert history["messages"][-1]["status"] == "complete"


async def first_data(response: aiohttp.ClientResponse) -> bytes:
    while not (line := await response.content.readline()).startswith(b"data: "):
        pass
    return line


async def first_text(response: aiohttp.ClientResponse) -> None:
    while b'"type":"text"' not in await response.content.readline():
        pass


async def test_sigterm_lets_a_short_turn_end_and_leaves_a_long_one(server: ServerProcess, model: ModelServer) -> None:
    server.environment["CHATD_DRAIN_TIMEOUT"] = "1"

    async def script(exchange: Exchange) -> None:
        if exchange.request.messages[-1] == ("user", "short"):
            return await says("a", "b", "c", delay=0.1)(exchange)
        await exchange.start()
        await exchange.text("One")
        return await asyncio.sleep(30)

    model.default = script
    async with serving(server) as chat, chat.streaming("short") as short, chat.streaming("long") as long_one:
        session = json.loads((await first_data(long_one))[6:])["session_id"]
        await first_text(long_one)
        await first_text(short)
        begun = time.monotonic()
        ending = asyncio.create_task(server.end(signal.SIGTERM))
        assert (await read_all(short))[-1].kind == "done"
        left = await read_all(long_one)
        assert all(event.kind == "text" for event in left)
        assert await ending == 0
        assert time.monotonic() - begun < 8
    assert "Traceback" not in server.log

    model.default = says(" two")
    async with serving(server) as chat:
        async with asyncio.timeout(10):
            while (history := await chat.history(session))["message_count"] < 2:
                await asyncio.sleep(0.05)
        assert history["messages"][1]["content"] == "One two"


async def test_no_word_of_content_or_key_is_logged(server: ServerProcess, model: ModelServer) -> None:
    server.environment |= {"ANTHROPIC_API_KEY": "sk-canary-key", "CHATD_LOG_LEVEL": "debug"}

    async def echoes(exchange: Exchange) -> None:
        await exchange.fail(400, "invalid_request_error", "sk-canary-key canary-prompt")

    model.play([says("canary-answer"), echoes])
    async with serving(server) as chat:
        answer = await chat.post("canary-prompt")
        await chat.post("canary-prompt", answer["session_id"], status=502)
        reader, writer = await asyncio.open_connection("127.0.0.1", chat.client._base_url.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer canary\x01\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
    assert "POST /agent/chat" in server.log
    assert "canary" not in server.log


async def test_sigterm_while_it_waits_for_the_database(tmp_path: Path, model: ModelServer) -> None:
    server = ServerProcess(
        DATABASE_URL="postgresql://nobody@127.0.0.1:9/x",
        CHATD_DATA_DIR=str(tmp_path),
        ANTHROPIC_BASE_URL=model.url,
    )
    starting = asyncio.create_task(server.start())
    async with asyncio.timeout(10):
        while "waiting 10 s for the database" not in server.log:
            await asyncio.sleep(0.05)
    server.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(server.process.wait(), 8) == 0
    await asyncio.gather(starting, return_exceptions=True)
    assert "Traceback" not in server.log


async def test_one_that_a_test_leaves_is_killed(server: ServerProcess) -> None:
    await server.kill()  # it was not even started
    await server.start()
    await server.kill()
    assert server.process.returncode == -signal.SIGKILL


async def test_the_port_is_taken(server: ServerProcess) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, output = await run("serve", **server.environment | {"CHATD_PORT": port})
    assert status == 1
    assert output.splitlines()[-1].startswith("chatd: ")
    assert "Traceback" not in output


async def test_wrong_settings(server: ServerProcess, tmp_path: Path) -> None:
    wrong = {"CHATD_PORT": "x", "CHATD_HEARTBEAT": "-1"}
    status, output = await run("serve", **server.environment | wrong)
    assert status == 2
    assert [line.split(":")[1] for line in output.splitlines()] == [" CHATD_PORT", " CHATD_HEARTBEAT"]
    status, output = await run("serve", CHATD_LOCAL_MODEL=str(tmp_path / "no.gguf"), CHATD_DATA_DIR=str(tmp_path))
    assert status == 2
    assert "CHATD_LOCAL_MODEL" in output
    assert "Traceback" not in output


async def test_a_second_server_on_the_same_data(server: ServerProcess) -> None:
    async with serving(server):
        status, output = await run("serve", **server.environment)
    assert status == 1
    assert "another chatd runs on" in output


async def test_commands_beside_a_server_use_its_embedded_database(server: ServerProcess) -> None:
    async with serving(server) as chat:
        await chat.post("hi")
        await chat.session(title="kept")
        for command in (["audit", "verify"], ["migrate"], ["erase", "--owner", "anonymous"]):
            status, output = await run(*command, **server.environment)
            assert status == 0, output
        assert "sessions: 2" in output
        assert (await chat.call("GET", "/agent/sessions"))["sessions"] == []
    status, output = await run("audit", "verify", **server.environment)
    assert status == 0, output


async def test_a_command_that_is_terminated_shuts_its_database_down(server: ServerProcess, tmp_path: Path) -> None:
    assert (await run("migrate", **server.environment))[0] == 0
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chatd", "import"),
        env=server.environment | {"CHATD_AUDIT_KEY": "k" * 64},
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(f"{json.dumps(HEADER)}\n".encode())
    lock = tmp_path / "data dir/postgres/pgdata/postmaster.pid"
    async with asyncio.timeout(20):
        while not lock.exists() or b"ready" not in lock.read_bytes():
            await asyncio.sleep(0.05)
    process.terminate()
    _, told = await process.communicate()
    assert (process.returncode, told.splitlines()[-1], lock.exists()) == (1, b"chatd: interrupted", False)


async def test_a_database_that_is_not_there() -> None:
    status, output = await run("migrate", DATABASE_URL="postgresql://nobody@127.0.0.1:9/x")
    assert status == 1
    assert output.splitlines()[-1].startswith("chatd: DATABASE_URL: the database can't be reached")


def test_only_a_name_that_is_not_there_is_a_wrong_setting() -> None:
    assert is_for_good(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    assert not is_for_good(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    assert not is_for_good(ConnectionRefusedError())


@pytest.mark.parametrize(
    "url", ["u:canary/x@127.0.0.1:1/x", "u:canary#x@h/x", "u:canary?x@h/x", "h:canary/x", "u@[bad/x"]
)
async def test_a_database_url_that_can_not_be_read(url: str) -> None:
    status, output = await run("migrate", DATABASE_URL=f"postgresql://{url}")
    assert status == 2
    assert output.startswith("chatd: DATABASE_URL: can't be read as")
    assert "canary" not in output


async def test_a_socket_that_another_server_listens_on(server: ServerProcess, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(tmp_path / "http.sock"))
        taken.listen()
        status, output = await run("serve", **server.environment | {"CHATD_SOCKET": str(tmp_path / "http.sock")})
    assert status == 1
    assert output.splitlines()[-1].startswith("chatd: CHATD_SOCKET")


async def test_migrate_and_version(dsn: str) -> None:
    assert (await run("migrate", DATABASE_URL=dsn))[0] == 0
    assert await run("--version") == (0, f"chatd {__version__}\n")
    status, output = await run("nonsense")
    assert status == 2
    assert "invalid choice" in output


async def test_a_unix_socket(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    server.environment["CHATD_SOCKET"] = str(path)
    starting = asyncio.create_task(server.start())
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
        async with asyncio.timeout(20):
            while not path.exists():
                await asyncio.sleep(0.05)
        assert (await Chat(session).post("hi"))["message"]["content"] == "Hello, world."
    starting.cancel()
    server.process.terminate()
    assert await server.process.wait() == 0
