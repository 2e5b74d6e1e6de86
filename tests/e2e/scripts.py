"""What the model says in the tests of the page."""

import asyncio
from collections.abc import Sequence

from tests.model_server import Exchange, Script

WORDS = "sea wind shore tide lamp harbour salt gull rope sail light stone water evening morning boat".split()


def prose(length: int, seed: int = 0) -> str:
    """Return so many characters of plain sentences in paragraphs, different for each seed."""
    parts: list[str] = []
    size, number = 0, seed
    while size < length:
        number += 1
        sentence = f"The {WORDS[number % 16]} and the {WORDS[number * 7 % 16]} meet {number} times. "
        parts.append(sentence.rstrip() + "\n\n" if number % 6 == 0 else sentence)
        size += len(parts[-1])
    return "".join(parts)[:length].rstrip() + "."


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def paced(pieces: Sequence[str], rate: float) -> Script:
    """Return the script of an answer of so many pieces a second; late ones catch up."""

    async def script(exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        await exchange.start()
        begin = loop.time()
        for number, piece in enumerate(pieces):
            await asyncio.sleep(max(0, begin + number / rate - loop.time()))
            await exchange.text(piece)
        await exchange.stop()

    return script


def resumed(text: str, rate: float, size: int = 6) -> Script:
    """Return the script of an answer that goes on from what is there of it already."""

    async def script(exchange: Exchange) -> None:
        role, said = exchange.request.messages[-1]
        rest = text[len(said) :] if role == "assistant" else text
        await paced(cut(rest, size), rate)(exchange)

    return script


class Held:
    """An answer that says its first part, and the rest when it is let go on."""

    def __init__(self, first: str, rest: str) -> None:
        self.first, self.rest = first, rest
        self.go_on = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.start()
        await exchange.text(*cut(self.first, 10))
        await self.go_on.wait()
        await exchange.text(*cut(self.rest, 10))
        await exchange.stop()
