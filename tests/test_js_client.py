"""The JavaScript client, in a real Node, against a real chatd, through a network that fails it."""

import asyncio
import json
import random
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chatd import __version__
from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.faults.proxy import Proxy, proxied
from tests.javascript import CLIENT, DENO, SCRIPTS, Follower, following, node, npm, run
from tests.model_server import Exchange, ModelServer, fails, says
from tests.server_process import ServerProcess, serving
from tests.test_recovery import sql
from tests.token_provider import SECRET, token

PACKAGE = json.loads((CLIENT / "package.json").read_text())
WORDS = ["one ", "zwölf ", "😀", "\r\n", "data: x\n\n", "\u2028", "\ufeff", '"\\', "שלום", "e\u0301 "]


def url_of(chat: Chat) -> str:
    return str(chat.client.make_url("/"))


def answer_of(chance: random.Random, length: int) -> list[str]:
    return [chance.choice(WORDS) for _ in range(length)]


@pytest.fixture
async def proxy(chat: Chat) -> AsyncIterator[Proxy]:
    async with proxied(("127.0.0.1", chat.client.port)) as proxy:
        yield proxy


async def saved(chat: Chat, end: dict[str, Any]) -> str:
    messages = (await chat.history(end["sessionId"]))["messages"]
    (text,) = (message["content"] for message in messages if message["id"] == end["messageId"])
    return str(text)


@pytest.mark.parametrize("script", ["sse.test.mjs", "breaks.test.mjs", "ends.test.mjs"])
async def test_by_itself(script: str) -> None:
    await node("--test-reporter=dot", SCRIPTS / script)


async def test_every_call(chat: Chat, model: ModelServer) -> None:
    model.default = says("Hello, ", "world.")
    await node("--test-reporter=dot", SCRIPTS / "api.test.mjs", CHATD_URL=url_of(chat))


async def test_the_oldest_node_that_the_package_names_is_the_one_tested() -> None:
    assert (await node("--version")).startswith(f"v{PACKAGE['engines']['node'].removeprefix('>=')}.")


# Streams


async def test_an_answer_is_streamed_as_it_is_saved(chat: Chat, model: ModelServer) -> None:
    pieces = answer_of(random.Random(1), 500)
    model.default = says(*pieces)
    async with following(url_of(chat)) as js:
        end = await js.end()
    assert js.kinds == ["start", "text", "done"]
    assert end["text"] == "".join(js.pieces) == "".join(pieces) == await saved(chat, end)
    assert js.seen[-2]["length"] == len(end["text"])
    assert end["error"] is None


async def test_byte_by_byte(chat: Chat, proxy: Proxy, model: ModelServer) -> None:
    pieces = answer_of(random.Random(2), 200)
    model.default = says(*pieces)
    proxy.slice = 1
    async with following(proxy.url) as js:
        end = await js.end()
    assert end["text"] == "".join(pieces)
    assert js.breaks == 0


@pytest.mark.parametrize("seed", range(3))
async def test_a_connection_that_is_cut_anywhere_loses_and_repeats_nothing(
    chat: Chat, proxy: Proxy, model: ModelServer, seed: int
) -> None:
    chance = random.Random(seed)
    pieces = [f"t{n:03} {word}" for n, word in enumerate(answer_of(chance, 300))]
    model.default = says(*pieces, delay=0.002)
    proxy.limit = chance.randrange(20, 300)  # the first one even in its head
    async with following(proxy.url) as js:
        reading = asyncio.create_task(js.end())
        while not reading.done():
            proxy.limit, proxy.limit_resets = chance.randrange(200, 4000), chance.random() < 0.5
            proxy.slice = chance.choice([None, 1, 7, 100])
            await asyncio.sleep(0.05)
        end = await reading
    assert js.breaks > 2
    assert js.kinds == ["start", "text", "done"]
    assert "".join(js.pieces) == "".join(pieces) == end["text"] == await saved(chat, end)
    assert len(model.requests) == 1


async def test_a_server_that_is_killed_and_started_again_in_the_middle(tmp_path: Path, model: ModelServer) -> None:
    model.play([says(*(f"t{n:03} " for n in range(200)), delay=0.01)])
    model.default = says("The end.")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = ServerProcess(listening, CHATD_DATA_DIR=str(tmp_path), ANTHROPIC_BASE_URL=model.url)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with serving(server), following(url) as js:
            await js.until("text")
            await server.end(signal.SIGKILL)
            await server.start()
            end = await js.end()
            assert server.process.returncode is None
    assert js.kinds == ["start", "text", "done"]
    assert end["text"] == "".join(js.pieces)
    assert end["text"].startswith("t000 ")
    assert end["text"].endswith("The end.")
    assert js.breaks


async def test_a_server_that_is_away_is_waited_for(chat: Chat, proxy: Proxy, model: ModelServer) -> None:
    proxy.refuse()
    async with following(proxy.url) as js:
        await js.until("connection")
        await js.until("connection")
        await proxy.listen()
        end = await js.end()
    assert end["text"] == "Hello, world."
    assert js.seen[0]["code"] == "unreachable"


async def test_a_network_that_falls_silent_is_left(chat: Chat, proxy: Proxy, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.1)
    async with following(proxy.url, silence=0.5) as js:
        await js.until("text")
        proxy.frozen = True
        await js.until("connection")
        proxy.frozen = False
        end = await js.end()
    assert "".join(js.pieces) == end["text"] == "abcdefghij"
    assert "silent" in [event.get("code") for event in js.seen]


async def test_what_the_model_does_is_told(chat: Chat, model: ModelServer) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text("I will")
        await exchange.stop("refusal")

    model.play([fails(529, "overloaded_error"), says("Here."), refuses])
    async with following(url_of(chat)) as js:
        end = await js.end()
    assert js.kinds == ["start", "retry", "text", "done"]
    assert (js.seen[2]["attempt"], js.seen[2]["reason"]) == (2, "upstream_overloaded")
    async with following(url_of(chat)) as js:
        end = await js.end()
    assert js.kinds == ["start", "text", "reset", "error"]
    assert (end["text"], end["error"]) == ("", None)


async def test_a_turn_that_is_stopped(chat: Chat, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.2)
    async with following(url_of(chat)) as js:
        started = await js.until("start")
        await js.until("text")
        stopped = await chat.call("POST", f"/agent/chat/stop/{started['session_id']}")
        end = await js.end()
    assert stopped["stopped"]
    assert js.seen[-2]["status"] == "stopped"
    assert end["text"] == await saved(chat, end) != "abcdefghij"


async def test_two_readers_of_one_turn_and_a_message_too_many(chat: Chat, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.2)
    async with following(url_of(chat)) as js:
        session = (await js.until("start"))["session_id"]
        async with following(url_of(chat), attach={"sessionId": session}) as other:
            async with following(url_of(chat), sessionId=session) as third:
                refused = await third.end()
            assert (await other.end())["text"] == "abcdefghij"
        assert (await js.end())["text"] == "abcdefghij"
    assert (refused["error"]["status"], refused["error"]["code"]) == (409, "turn_in_progress")
    assert other.kinds == ["start", "text", "done"]


async def test_an_abort_leaves_nothing_behind(chat: Chat, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.1)
    async with following(url_of(chat), abortAt="text") as js:
        end = await js.end()  # the process has ended by itself
    assert end["error"]["name"] == "AbortError"
    assert end["text"] == "a"
    (run,) = chat.turns.running.values()
    await until(lambda: not run.log.readers)
    attach = {"sessionId": end["sessionId"], "lastEventId": end["lastEventId"], "text": end["text"]}
    async with following(url_of(chat), attach=attach) as js:
        assert (await js.end())["text"] == "abcdefghij"
    assert js.pieces == list("bcdefghij")


async def test_a_token_that_expires_is_asked_for_anew(start: Start, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.3)
    chat = await start(auth="jwt", jwt_secret=SECRET)
    short, long = token(exp=time.time() + 2), token()
    async with following(url_of(chat), tokens=[short, long]) as js:
        end = await js.end()
    assert end["text"] == "abcdefghij"
    assert js.breaks
    short = token(exp=time.time() + 2)
    async with following(url_of(chat), tokens=[short]) as js:
        end = await js.end()
    assert (end["error"]["status"], end["error"]["code"]) == (401, "unauthorized")
    attach = {"sessionId": end["sessionId"], "lastEventId": end["lastEventId"], "text": end["text"]}
    async with following(url_of(chat), attach=attach, tokens=[long]) as js:
        assert (await js.end())["text"] == "abcdefghij"


async def held_back(js: Follower, proxy: Proxy, chat: Chat) -> None:
    """Keep the client away from the first piece on, until its turn has ended."""
    await js.until("text")
    proxy.refuse()
    proxy.reset_all()
    await until(lambda: not chat.turns.running)


async def test_events_that_are_swept_meanwhile(chat: Chat, proxy: Proxy, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.05)
    async with following(proxy.url) as js:
        await held_back(js, proxy, chat)
        await sql(chat, "DELETE FROM agent_events")
        await proxy.listen()
        end = await js.end()
    assert js.kinds == ["start", "text", "reset", "done"]
    assert end["text"] == "abcdefghij"


async def test_events_that_are_swept_and_another_turn_after_them(chat: Chat, proxy: Proxy, model: ModelServer) -> None:
    """The server has only the text of the last turn to offer: that is not shown as this one's."""
    model.default = says(*"abcdefghij", delay=0.05)
    async with following(proxy.url) as js:
        await held_back(js, proxy, chat)
        await chat.post("another", js.seen[1]["session_id"])
        await sql(chat, "DELETE FROM agent_events")
        await proxy.listen()
        end = await js.end()
    assert js.kinds == ["start", "text", "reset", "done"]
    assert end["text"] == "abcdefghij"
    assert end["messageId"] == js.seen[1]["message_id"]


# The package


def test_it_has_the_version_of_chatd() -> None:
    assert PACKAGE["version"] == __version__


async def test_its_types_are_those_of_its_code() -> None:
    sources = [*CLIENT.glob("*.js"), *CLIENT.glob("*.d.ts"), SCRIPTS / "consumer.ts"]
    await run(DENO, "check", "--quiet", "--no-remote", "--no-npm", "--config", SCRIPTS / "types.json", *sources)


async def test_it_can_be_packed_and_installed(chat: Chat, tmp_path: Path) -> None:
    packed = json.loads(await npm("pack", "--json", f"--pack-destination={tmp_path}", CLIENT, cwd=tmp_path))[0]
    files = {file["path"] for file in packed["files"]}
    assert files == {path.name for path in CLIENT.iterdir()}
    assert packed["unpackedSize"] < 100_000
    (tmp_path / "package.json").write_text('{"type": "module"}')
    await npm("install", tmp_path / packed["filename"], cwd=tmp_path)
    (tmp_path / "use.mjs").write_text(
        'import { ChatClient } from "chatd-client";\n'
        f'const client = new ChatClient({{ baseUrl: "{url_of(chat)}", characterId: 7 }});\n'
        'console.log((await client.sendMessage("hi")).message.content);\n'
    )
    assert await node("use.mjs", cwd=tmp_path) == "Hello, world.\n"


async def test_the_examples_of_its_readme_run(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "chatd-client").symlink_to(CLIENT)
    examples = (CLIENT / "README.md").read_text().split("```js\n")[1:]
    script = "".join(example.partition("```")[0] for example in examples)
    (tmp_path / "examples.mjs").write_text(script.replace("http://127.0.0.1:8000/", url_of(chat)))
    assert "Hello, world." in await node("examples.mjs", cwd=tmp_path)
