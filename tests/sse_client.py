"""A reader of event streams that follows the specification, for the tests' side of the wire."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass
class Event:
    data: dict[str, Any]
    id: str

    @property
    def kind(self) -> str:
        return str(self.data["type"])

    @property
    def seq(self) -> int:
        return int(self.id.rpartition(".")[2])


async def events(response: aiohttp.ClientResponse) -> AsyncGenerator[Event, None]:
    """Yield events as they come, until the stream ends."""
    last_id = ""
    data: list[str] = []
    async for line in lines(response):
        if not line:
            if data:
                yield Event(json.loads("\n".join(data)), last_id)
            data = []
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "id":
            last_id = value


async def lines(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    rest = b""
    async for chunk in response.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode()


async def read_all(response: aiohttp.ClientResponse) -> list[Event]:
    return [event async for event in events(response)]


def text_of(received: list[Event]) -> str:
    """Return what a client that follows text and reset shows."""
    text = ""
    for event in received:
        if event.kind == "text":
            text += event.data["text"]
        elif event.kind == "reset":
            text = event.data["text"]
    return text
