"""A model that counts as its question asks, and goes on exactly where an interrupted answer broke off.

Whatever happens to a turn, its text must be the whole count: a gap, a repeat or somebody else's piece shows.
"""

import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chatd.prompt import GO_ON
from tests.model_server import Exchange, ModelServer

BEFORE_TAIL, AFTER_TAIL = GO_ON.split("{tail}")
PIECE = re.compile(r"\s*\S+\s?")


@dataclass(frozen=True)
class Question:
    """A question that carries its own answer; the canary is this turn's alone."""

    canary: str
    count: int = 100
    pace: int = 10  # milliseconds from one piece to the next
    width: int = 0  # characters that fill up each piece

    PATTERN = re.compile(r"count (\d+) every (\d+) ms as (\S+) wide (\d+)")

    @classmethod
    def read(cls, text: str) -> "Question | None":
        match = cls.PATTERN.fullmatch(text)
        return match and cls(match[3], int(match[1]), int(match[2]), int(match[4]))

    def __str__(self) -> str:
        return f"count {self.count} every {self.pace} ms as {self.canary} wide {self.width}"

    @property
    def answer(self) -> str:
        fill = "." * self.width
        return "".join(f"{self.canary}:t{n:04d}{fill} " for n in range(self.count))


@dataclass(frozen=True)
class Asked:
    """What a request asks for: a question, the text that is already there, and whether it is a prefill."""

    question: Question
    given: str
    is_prefill: bool


def read_request(messages: list[tuple[str, str]]) -> Asked | None:
    """Return what a request's messages ask for; None where no question is among them."""
    for at in reversed(range(len(messages))):
        role, text = messages[at]
        if role == "user" and (question := Question.read(text)):
            begun = messages[at + 1 :]
            given = begun[0][1] if begun else ""
            if len(begun) == 2:
                tail = begun[1][1].removeprefix(BEFORE_TAIL).removesuffix(AFTER_TAIL)
                given += tail[len(tail.rstrip()) :]
            return Asked(question, given, is_prefill=len(begun) == 1)
    return None


Fault = Callable[[Exchange, list[str]], Awaitable[None]]  # given the pieces that would come


async def breaks_off(exchange: Exchange, pieces: list[str]) -> None:
    """Say half of it, and fail with an event."""
    await exchange.start()
    await exchange.text(*pieces[: len(pieces) // 2], delay=0.01)
    await exchange.event("error", error={"type": "overloaded_error"})


class CountingModel(ModelServer):
    def __init__(self) -> None:
        super().__init__()
        self.hello, self.default = self.default, self._count
        self.refuses_prefill = False
        self.asked: Counter[str] = Counter()  # canary: requests
        self.refused: Counter[str] = Counter()  # canary: prefills that were refused
        self.faults: dict[str, list[Fault]] = {}  # canary: what its next requests are answered with instead
        self.strange: list[str] = []  # what no correct client would have sent
        self.sent: dict[str, float] | None = None  # a piece: when it was sent, where somebody wants to know

    async def _count(self, exchange: Exchange) -> None:
        asked = read_request(exchange.request.messages)
        self.requests.clear()  # a long run would keep every history
        if asked is None:
            await self.hello(exchange)
            return
        question, given = asked.question, asked.given
        self.asked[question.canary] += 1
        if not question.answer.startswith(given):
            self.strange.append(f"{question.canary} to go on from {given[-60:]!r}")
            await exchange.fail(422, "invalid_request_error")
        elif asked.is_prefill and self.refuses_prefill:
            self.refused[question.canary] += 1
            await exchange.fail(400, "invalid_request_error", "This model does not support prefill.")
        elif faults := self.faults.get(question.canary):
            await faults.pop(0)(exchange, PIECE.findall(question.answer[len(given) :]))
        else:
            await self._answer_from(exchange, question, len(given))

    async def _answer_from(self, exchange: Exchange, question: Question, start: int) -> None:
        await exchange.start()
        for piece in PIECE.findall(question.answer[start:]):
            if self.sent is not None:
                self.sent[piece.strip()] = time.monotonic()
            await exchange.text(piece, delay=question.pace / 1000)
        await exchange.stop(output_tokens=question.count)
