"""An answer through the proxy: broken off and taken up again, stopped, and the same as what is kept."""

from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from chatd.doctor.client import LOOK, Client, Frame, frames
from chatd.doctor.findings import Finding, Findings, Unexpected, failed, note, warning

QUESTION = "Count from one to thirty, in words."
STORY = "Tell a long story about the sea."
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


async def check_turns(client: Client) -> Findings:
    """Make a session, see that an answer can be taken up again and stopped, and delete the session."""
    me = await client.ask("GET", "/agent/me")
    if me["characters"] == []:
        raise Unexpected("the token speaks for no character", "set CHATD_TOKEN to one that lists character ids")
    character = (me["characters"] or [1])[0]
    body = {"character_id": character, "title": TITLE}
    session = (await client.ask("POST", "/agent/session", 201, json=body))["session_id"]
    try:
        turns = Turns(client, session, character)
        async for finding in turns.check():
            yield finding
    finally:
        await client.ask("DELETE", f"/agent/session/{session}", 204)


class Turns:
    """The turns of one session."""

    def __init__(self, client: Client, session: str, character: int) -> None:
        self.client, self.session, self.character = client, session, character

    async def check(self) -> Findings:
        yield note("resume", "asking the model, breaking the stream off, coming back")
        seen = await self.read_until_text(QUESTION)
        broken_at = len(seen.seqs)
        await self.go_on(seen)
        if seen.last.get("type") == "error":
            yield failed("model", seen.last["error"], "run `chatd doctor` on the server's host")
            return
        yield await self.look_at_resumption(seen, broken_at)
        yield await self.look_at_stop()

    def posted(self, message: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        body = {"message": message, "session_id": self.session, "character_id": self.character}
        return self.client.stream("POST", "/agent/chat/stream", json=body)

    async def read_until_text(self, message: str) -> Seen:
        """Post a message and read its stream until there is some text; then break the connection off."""
        seen = Seen()
        async with self.posted(message) as response:
            async with aclosing(frames(response)) as coming:
                async for frame in coming:
                    seen.see(frame)
                    if seen.text or seen.is_over:
                        break
            response.close()
        return seen

    async def go_on(self, seen: Seen) -> None:
        """Attach behind what was seen, and read to the end."""
        headers = {"Last-Event-ID": seen.cursor}
        try:
            async with (
                self.client.stream("GET", f"/agent/chat/stream/{self.session}", headers=headers) as response,
                aclosing(frames(response)) as coming,
            ):
                async for frame in coming:
                    seen.see(frame)
        except aiohttp.ClientError as error:
            raise Unexpected("a stream that was attached to is cut", LOOK) from error

    async def saved(self) -> dict[str, Any]:
        """Return the session's last message."""
        history = await self.client.ask("GET", f"/agent/chat/history/{self.session}?limit=1")
        message: dict[str, Any] = history["messages"][-1]
        return message

    async def look_at_resumption(self, seen: Seen, broken_at: int) -> Finding:
        message = await self.saved()
        if not seen.is_over:
            return failed("resume", "the stream that was taken up again ended without `done`", LOOK)
        if not seen.is_whole or (message["id"], message["content"]) != (seen.last["message_id"], seen.text):
            return failed("resume", "an answer that was taken up again is not what the history says", LOOK)
        detail = f"broken off after event {broken_at} of {len(seen.seqs)} and taken up again: no gap, no repeat"
        return Finding("resume", detail)

    async def look_at_stop(self) -> Finding:
        """Stop an answer once there is some text, and read its stream to the end."""
        seen, stopped = Seen(), None
        async with self.posted(STORY) as response, aclosing(frames(response)) as coming:
            async for frame in coming:
                seen.see(frame)
                if seen.text and stopped is None:
                    stopped = await self.client.ask("POST", f"/agent/chat/stop/{self.session}")
        if stopped is None:
            return failed("stop", "the model gave no answer that could be stopped", LOOK)
        if not stopped["stopped"]:
            return warning("stop", "the answer was complete before it could be stopped", "try again")
        message = await self.saved()
        if (message["status"], message["content"], seen.is_whole) != ("stopped", seen.text, True):
            return failed("stop", "the text that was shown is not what was kept", LOOK)
        return Finding("stop", f"the answer is stopped, its {len(seen.text)} characters are kept")
