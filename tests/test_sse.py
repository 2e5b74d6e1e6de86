"""The wire format as pure functions: exact bytes out, any bytes in."""

import json
import random
from collections.abc import Callable

import pytest
import sseclient
from anthropic._streaming import SSEDecoder

from chatd.sse import Decoder, clean, clean_json, encode, frame
from tests.chat_client import Chat
from tests.model_server import ModelServer, says

TURN = "turn-" + "0" * 32
ALPHABET = ["a", "é", "😀", "\r", "\n", "\r\n", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x00", "\ufeff"]
ALPHABET += ["\ud800", "\udfff", "data: ", "id: ", ": ", "\n\n", "event: x\n", '"', "\\", "\\u0000", " ", "\u200b"]


def test_a_frame_byte_by_byte() -> None:
    data = encode({"type": "text", "text": 'a\r\n"é\u2028'})
    expected = f'id: {TURN}.3\ndata: {{"type":"text","text":"a\\r\\n\\"é\\u2028"}}\n\n'
    assert frame(TURN, 3, data) == expected.encode()


def test_what_can_not_be_stored_is_replaced() -> None:
    assert clean("a\x00b\ud83dc\udc00") == "a\ufffdb\ufffdc\ufffd"
    assert clean_json({"k\x00": ["\ud800", 1, None, {"x": True}]}) == {"k\ufffd": ["\ufffd", 1, None, {"x": True}]}


@pytest.mark.parametrize("nothing", [b"event: x\ndata:", b"event: x\ndata:  ", b"data:  ", b": ping", b"event: x"])
def test_an_event_without_data_is_passed_over(nothing: bytes) -> None:
    assert list(Decoder().feed(nothing + b"\n\nevent: y\ndata:  {}\n\n")) == [{}]


def by_the_specification(body: bytes) -> list[str]:
    """Parse as https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation says."""
    text = body.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found, data = [], []
    for line in text.split("\n"):
        field, _, value = line.partition(":")
        if line and field == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            found.append("\n".join(data))
            data = []
    return found


def by_the_sdk(body: bytes) -> list[str]:
    return [event.data for event in SSEDecoder().iter_bytes(iter([body]))]


def by_sseclient(body: bytes) -> list[str]:
    return [event.data for event in sseclient.SSEClient(iter([body])).events()]


def by_lines(body: bytes) -> list[str]:
    """Parse as careless clients do."""
    return [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("parse", [by_the_specification, by_the_sdk, by_sseclient, by_lines])
def test_random_text_comes_out_of_independent_parsers_unchanged(parse: Callable[[bytes], list[str]]) -> None:
    chance = random.Random(1)
    texts = ["".join(chance.choices(ALPHABET, k=chance.randrange(40))) for _ in range(500)]
    body = b"".join(frame(TURN, n, encode({"type": "text", "text": clean(text)})) for n, text in enumerate(texts))
    assert [json.loads(data)["text"] for data in parse(body)] == [clean(text) for text in texts]


async def test_random_text_passes_from_the_model_to_independent_parsers(chat: Chat, model: ModelServer) -> None:
    chance = random.Random(3)
    pieces = ["".join(chance.choices(ALPHABET, k=chance.randrange(1, 20))) for _ in range(300)]
    model.default = says(*pieces)
    async with chat.streaming("hi") as response:
        body = await response.read()
    sent = [json.loads(json.dumps(piece)) for piece in pieces]  # JSON makes a character of two surrogates that meet
    for parse in (by_the_specification, by_the_sdk, by_sseclient, by_lines):
        received = [json.loads(data) for data in parse(body)]
        assert "".join(event.get("text", "") for event in received) == "".join(map(clean, sent))


def test_the_decoder_takes_any_line_ends_cut_anywhere() -> None:
    chance = random.Random(2)
    stream = [{"n": n, "text": "é😀"} for n in range(5)]
    for end in ("\n", "\r\n", "\r"):
        lines = [f"event: x{end}: comment{end}data: {json.dumps(event)}{end}{end}" for event in stream]
        body = "".join(lines).encode()
        for _ in range(50):
            decoder, got, at = Decoder(), [], 0
            while at < len(body):
                size = chance.randrange(1, 30)
                got += list(decoder.feed(body[at : at + size]))
                at += size
            assert got == stream


def test_the_decoder_joins_data_lines_and_ignores_the_rest() -> None:
    body = b'id: 1\nretry: 5\ndata: {"a":\ndata:1}\n\nevent: nothing\n\n:\n\ndata: {"b":2}'
    decoder = Decoder()
    assert list(decoder.feed(body)) == [{"a": 1}]
    assert list(decoder.feed(b"\n\n")) == [{"b": 2}]


def test_the_decoder_refuses_an_endless_event() -> None:
    decoder = Decoder()
    with pytest.raises(ValueError, match="too large"):
        for _ in range(20):
            list(decoder.feed(b"x" * (1 << 20)))
