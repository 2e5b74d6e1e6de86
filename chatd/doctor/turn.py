"""An answer through the proxy: broken off and taken up again, stopped, and the same as what is kept."""

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from chatd.doctor.client import LOOK, Client, Frame, frames
from chatd.doctor.findings import Finding, Findings, Unexpected, failed, note, warning

MESSAGE = "Tell a long story about the sea."
MORE = 5  # events after which the answer is stopped
TITLE = "chatd doctor"
ENDS = {"done", "error"}


@dataclass
class Seen:
    """What a client has of a turn's events."""

    text: str = ""
    seqs: list[int] = field(default_factory=list)
    cursor: str = ""
    last: dict[str, Any] = field(default_factory=dict)

    def see(self, frame: Frame) -> None:
        if frame.event is None:
            return
        self.last, self.cursor = frame.event, frame.id
        self.seqs.append(int(frame.id.rpartition(".")[2]))
        if self.last["type"] == "text":
            self.text += self.last["text"]
        elif self.last["type"] == "reset":
            self.text = self.last["text"]

    @property
    def is_over(self) -> bool:
        return self.last.get("type") in ENDS

    @property
    def is_whole(self) -> bool:
        return self.seqs == list(range(1, len(self.seqs) + 1))


async def check_turn(client: Client) -> Findings:
    """Make a session, see that an answer can be taken up again and stopped, and delete the session."""
    me = await client.ask("GET", "/agent/me")
    if me["characters"] == []:
        raise Unexpected("the token speaks for no character", "set CHATD_TOKEN to one that lists character ids")
    character = (me["characters"] or [1])[0]
    body = {"character_id": character, "title": TITLE}
    session = (await client.ask("POST", "/agent/session", 201, json=body))["session_id"]
    try:
        async for finding in TurnCheck(client, session, character).check():
            yield finding
    finally:
        try:
            await client.ask("DELETE", f"/agent/session/{session}", 204)
        except (Unexpected, aiohttp.ClientError, OSError) as error:
            reason = str(error) if isinstance(error, Unexpected) else type(error).__name__
            yield warning("session", f"{session} is left there: {reason}", f"{LOOK}, and delete it")


class TurnCheck:
    """One turn of a session: begun, left, come back to, stopped."""

    def __init__(self, client: Client, session: str, character: int) -> None:
        self.client, self.session, self.character = client, session, character
        self.seen = Seen()
        self.broken_at = 0  # the events before the connection was broken off
        self.stopped: bool | None = None  # None: it was over before

    async def check(self) -> Findings:
        yield note("resume", "asking the model, breaking the answer off, coming back, stopping it")
        await self.begin()
        await self.come_back()
        if self.seen.last.get("type") == "error":
            yield failed("model", self.seen.last["error"], "run `chatd doctor` on the server's host")
            return
        history = await self.client.ask("GET", f"/agent/chat/history/{self.session}?limit=1")
        yield self.look_at_resumption(history["messages"][-1])
        yield self.look_at_stop(history["messages"][-1])

    async def begin(self) -> None:
        """Post a message and read its stream until there is some text; then break the connection off."""
        body = {"message": MESSAGE, "session_id": self.session, "character_id": self.character}
        async with self.client.stream("POST", "/agent/chat/stream", json=body) as response:
            async with aclosing(frames(response)) as coming:
                async for frame in coming:
                    self.seen.see(frame)
                    if self.seen.text or self.seen.is_over:
                        break
            response.close()
        self.broken_at = len(self.seen.seqs)

    async def come_back(self) -> None:
        """Attach behind what was seen, stop the answer after a few more events, and read to the end."""
        path, headers = f"/agent/chat/stream/{self.session}", {"Last-Event-ID": self.seen.cursor}
        async with self.client.stream("GET", path, headers=headers) as response, aclosing(frames(response)) as coming:
            async for frame in coming:
                self.seen.see(frame)
                enough = len(self.seen.seqs) >= self.broken_at + MORE
                if enough and self.stopped is None and not self.seen.is_over:
                    self.stopped = (await self.client.ask("POST", f"/agent/chat/stop/{self.session}"))["stopped"]

    def look_at_resumption(self, message: Any) -> Finding:
        seen = self.seen
        if not seen.is_over:
            return failed("resume", "the stream that was taken up again ended without `done`", LOOK)
        if self.broken_at == len(seen.seqs):
            return warning("resume", "the answer was complete before it could be broken off", "try again")
        if not seen.is_whole or (message["id"], message["content"]) != (seen.last["message_id"], seen.text):
            return failed("resume", "an answer that was taken up again is not what the history says", LOOK)
        detail = f"broken off after event {self.broken_at} of {len(seen.seqs)} and taken up again: no gap, no repeat"
        return Finding("resume", detail)

    def look_at_stop(self, message: Any) -> Finding:
        if not self.stopped:
            return warning("stop", "the answer was complete before it could be stopped", "try again")
        if message["status"] != "stopped" or self.seen.last.get("status") != "stopped":
            return failed("stop", "the answer was stopped, and is not told as that", LOOK)
        return Finding("stop", f"the answer is stopped, its {len(message['content'])} characters are kept")
