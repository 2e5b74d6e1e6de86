"""What is sent upstream: the tail of the history that fits, cut in coarse steps, and the ways to continue a text."""

from dataclasses import dataclass, replace
from typing import Any

from chatd.errors import NotFound
from chatd.repo import Repo
from chatd.seam import OverlapSeam, PrefillSeam, Seam

PAGE = 500  # messages a query
CACHED = {"cache_control": {"type": "ephemeral"}}
TAIL = 500  # characters of the interrupted text that the request to go on quotes
# https://platform.claude.com/docs/en/build-with-claude/streaming ("Error recovery")
GO_ON = (
    "Your previous response was interrupted and ended with:\n\n{tail}\n\n"
    "Continue from where you left off. Do not repeat what you have written, and do not comment on the interruption."
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A system prompt (may be empty) and messages, oldest first: (role, text), the last one the user's."""

    system: str
    messages: tuple[tuple[str, str], ...]

    def shorter(self) -> "Prompt":
        """Return less of it: without older messages, or half of its only one or of the system prompt; or just it."""
        if len(self.messages) > 1:
            return replace(self, messages=starting_with_user(self.messages[len(self.messages) // 2 :]))
        role, text = self.messages[0]
        if len(self.system) > len(text):
            return replace(self, system=self.system[: len(self.system) // 2])
        return replace(self, messages=((role, text[-max(1, len(text) // 2) :]),))

    def tokens(self) -> int:
        """Return about how many tokens it takes."""
        return sum(estimate_tokens(text) for text in (self.system, *(text for _, text in self.messages)))

    def parameters(self, messages: tuple[tuple[str, str], ...] | None = None) -> dict[str, Any]:
        """Return the request's `system` and `messages`; all of it, up to the last message of the user's, is cached."""
        sent = messages or self.messages
        last = max(i for i, (role, _) in enumerate(sent) if role == "user")
        content = [text_block(text) | (CACHED if i == last else {}) for i, (_, text) in enumerate(sent)]
        made = [{"role": role, "content": [block]} for (role, _), block in zip(sent, content, strict=True)]
        return {"messages": made} | ({"system": [text_block(self.system) | CACHED]} if self.system.strip() else {})

    def prefilled(self, shown: str) -> tuple[dict[str, Any], Seam]:
        """Ask for the continuation of `shown` by a last message that the assistant has begun."""
        begun = (("assistant", shown.rstrip()),) if shown.strip() else ()
        return self.parameters(self.messages + begun), PrefillSeam(shown)

    def asked_to_go_on(self, shown: str) -> tuple[dict[str, Any], Seam]:
        """Ask for the continuation of `shown` by a message of the user's."""
        asked = (("assistant", shown.rstrip()), ("user", GO_ON.format(tail=shown[-TAIL:])))
        return self.parameters(self.messages + asked), OverlapSeam(shown)


def text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def starting_with_user(messages: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    first = next((i for i, (role, _) in enumerate(messages) if role == "user"), len(messages))
    return messages[first:]


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a message takes: rather too many than too few."""
    return len(text.encode()) // 3 + 4


async def load_prompt(repo: Repo, session_id: str, default_system: str, budget: int) -> Prompt:
    """Return the session's prompt, of `budget` tokens at most, its last message excepted; raises NotFound.

    A history that outgrows the budget is cut to half of it, once for many turns: a window that slid with each turn
    would never find its beginning in the upstream's prompt cache.
    """
    system, window = await read_window(repo, session_id, budget)
    if not window:
        raise NotFound
    if sum(tokens for *_, tokens in window) > budget:
        window = newest(window, budget // 2)
        await repo.set_context_start(session_id, window[-1][0])
    messages = tuple((role, text) for _, role, text, _ in reversed(window))
    return Prompt(default_system if system is None else system, starting_with_user(messages))


Row = tuple[int, str, str, int]  # seq, role, text, tokens


async def read_window(repo: Repo, session_id: str, budget: int) -> tuple[str | None, list[Row]]:
    """Return the system prompt and the messages that can be sent, latest first, until they go over the budget."""
    system: str | None = None
    window: list[Row] = []
    used, before = 0, None
    while used <= budget:
        page = await repo.list_context(session_id, before, PAGE)
        if page and page[-1][1] == "system":
            system = page.pop()[2]
        window += [(*row, estimate_tokens(row[2])) for row in page if row[2].strip()]  # the API refuses blank ones
        used = sum(tokens for *_, tokens in window)
        if len(page) < PAGE:
            break
        before = page[-1][0]
    return system, window


def newest(window: list[Row], budget: int) -> list[Row]:
    """Return the latest rows that fit, at least one, down to a user's."""
    kept, used = 1, window[0][3]
    while kept < len(window) and used + window[kept][3] <= budget:
        used += window[kept][3]
        kept += 1
    while window[kept - 1][1] != "user":
        kept -= 1
    return window[:kept]
