"""The real local model: words, usage, continuation, a prompt that is too long for its window."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from chatd.config import Config
from chatd.local_model import PROMPT_TOKENS, open_local_model
from tests.chat_client import Chat
from tests.conftest import Start
from tests.sse_client import text_of

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
async def local(start: Start) -> AsyncIterator[Chat]:
    yield await start(api_key=None, base_url=None, max_tokens=40)


async def test_a_real_model_answers(local: Chat) -> None:
    received = await local.stream("What is the capital of France?")
    done = received[-1].data
    assert done["type"] == "done"
    assert len(received) > 4
    assert len(text_of(received)) == done["length"] > 0
    assert 0 < done["token_usage"]["output_tokens"] <= 40
    assert done["stop_reason"] in {"end_turn", "max_tokens"}
    again = await local.post("And of Italy?", received[0].data["session_id"])
    assert again["message"]["model"].startswith("SmolLM2")
    assert (await local.history(again["session_id"]))["message_count"] == 4


async def test_a_prompt_of_any_length_is_fitted_to_its_window(local: Chat) -> None:
    usage = await told_usage(local, "What is the capital of France? " * 300)
    assert 1000 < usage["input_tokens"] + usage["cache_read_input_tokens"] <= PROMPT_TOKENS
    for characters in ("Ö", "😀"):
        answer = await local.post(characters * 10_000)
        assert answer["message"]["status"] == "complete"


async def told_usage(local: Chat, text: str) -> dict[str, int]:
    """Ask until the model tells what it read.

    llama.cpp leaves `message_start` out where the answer's first token is a part of a character.
    """
    for _ in range(5):
        answer = await local.post(text)
        assert answer["message"]["status"] == "complete"
        usage: dict[str, int] = answer["message"]["token_usage"]
        if "input_tokens" in usage:
            return usage
    raise AssertionError("no answer told of its prompt's tokens")


async def test_its_server_is_started_again_and_takes_its_key_only(config: Config) -> None:
    import aiohttp

    async with open_local_model(replace(config, api_key=None, base_url=None)) as local:
        url = await local.address()
        async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/models") as response:
            assert response.status == 401
        assert local.process is not None
        local.process.kill()
        await local.process.wait()
        assert await local.address() != url
