"""What a model's events add up to: text, blocks, usage, the reason why it stopped; over all attempts of a turn."""

from collections.abc import Iterator
from typing import Any

from chatd.seam import Seam
from chatd.sse import clean, clean_json

# delta type: the field that it appends to
APPENDED = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


class Reply:
    """An answer as it comes in. Blocks of unknown types are kept as they began, unknown events are passed over."""

    def __init__(self, text: str = "") -> None:
        self.blocks: list[dict[str, Any]] = []
        self.parts: list[dict[str, list[str]]] = []  # of each block: what its fields are made of
        self.usage: dict[str, Any] | None = None
        self.model: str | None = None
        self.request_id: str | None = None
        self.begin(None)
        if text:
            self._open(-1, {"type": "text", "text": text})

    def begin(self, seam: Seam | None) -> None:
        """Begin an attempt; with a seam it continues the text so far."""
        self.open: dict[Any, int] = {}  # the attempt's block numbers: where in blocks
        self.seam = seam
        self.attempt_usage: dict[str, Any] = {}
        self.stop_reason: str | None = None
        self.complete = False

    def clear(self) -> None:
        """Forget all that was said; what it cost stays."""
        self.blocks, self.parts, self.open = [], [], {}

    @property
    def text(self) -> str:
        return "".join(self._texts())

    def _texts(self) -> Iterator[str]:
        for block, parts in zip(self.blocks, self.parts, strict=True):
            if block["type"] == "text":
                yield from parts.get("text", ())

    def content_blocks(self) -> list[dict[str, Any]] | None:
        """Return the blocks with their text; None where plain text is all there is."""
        made = [
            block | {field: "".join(parts) for field, parts in parts.items()}
            for block, parts in zip(self.blocks, self.parts, strict=True)
        ]
        kept = [block for block in made if block["type"] != "text" or block.get("text")]
        plain = all(block.keys() <= {"type", "text"} and block["type"] == "text" for block in kept)
        return None if plain and len(kept) <= 1 else kept

    def add(self, event: Any) -> str | None:
        """Take an event in; return the text to show, "" for content of another kind, None where it is no content."""
        kind = event.get("type") if isinstance(event, dict) else None
        if kind == "content_block_delta":
            return self._delta(event.get("index"), event.get("delta"))
        if kind == "content_block_start":
            return self._start_block(event.get("index"), event.get("content_block"))
        if kind == "message_start":
            self._start(event.get("message"))
        elif kind == "message_delta":
            self._stop(event)
        elif kind == "message_stop":
            self.complete = True
            return self._close_seam()
        return None

    def _start(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        if isinstance(model := message.get("model"), str):
            self.model = clean(model)
        self._count(message.get("usage"))

    def _stop(self, event: dict[str, Any]) -> None:
        delta = event.get("delta")
        reason = delta.get("stop_reason") if isinstance(delta, dict) else None
        self.stop_reason = clean(reason) if isinstance(reason, str) else self.stop_reason
        self._count(event.get("usage"))

    def _count(self, usage: Any) -> None:
        """Take in usage: cumulative within an attempt, summed over attempts."""
        if not isinstance(usage, dict):
            return
        known = {key: value for key, value in clean_json(usage).items() if value is not None}
        self.usage = add_counts(self.usage or {}, known, self.attempt_usage)
        self.attempt_usage |= known

    def _start_block(self, index: Any, block: Any) -> str | None:
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            return None
        block = clean_json(block)
        goes_on = self.seam is not None and not self.open and block["type"] == "text"
        if goes_on and self.blocks and self.blocks[-1]["type"] == "text":
            self.open[index] = len(self.blocks) - 1
        else:
            self._open(index, {key: value for key, value in block.items() if key != "text"})
        text = block.get("text")
        return self._append(index, "text", text) if block["type"] == "text" and text else None

    def _open(self, index: Any, block: dict[str, Any]) -> None:
        text = block.pop("text", "")
        self.open[index] = len(self.blocks)
        self.blocks.append(block)
        self.parts.append({"text": [text]} if block["type"] == "text" else {})

    def _delta(self, index: Any, delta: Any) -> str | None:
        if not isinstance(delta, dict):
            return None
        field = APPENDED.get(delta.get("type", ""))
        value = delta.get(field) if field else None
        if not field or not isinstance(value, str):
            return "" if any(value for key, value in delta.items() if key != "type") else None
        if index not in self.open:
            self._start_block(index, {"type": "text" if field == "text" else "thinking"})
        return self._append(index, field, value) if value else None

    def _append(self, index: Any, field: str, value: str) -> str:
        value = clean(value)
        if field == "text" and self.seam is not None:
            value = self.seam.feed(value)
        at = self.open[index]
        block, parts = self.blocks[at], self.parts[at]
        if field not in parts:
            first = block.pop(field, "")
            parts[field] = [first] if isinstance(first, str) else []
        parts[field].append(value)
        return value if field == "text" and block["type"] == "text" else ""

    def _close_seam(self) -> str | None:
        held = self.seam.close() if self.seam is not None else ""
        if not held:
            return None
        if not self.blocks or self.blocks[-1]["type"] != "text":
            self._open(-1, {"type": "text"})
        self.parts[-1]["text"].append(held)
        return held


def add_counts(total: dict[str, Any], now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return the total with what `now` counts more than `before`; what is no number is replaced."""
    result = dict(total)
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict):
            mine = total.get(key)
            result[key] = add_counts(
                mine if isinstance(mine, dict) else {}, value, old if isinstance(old, dict) else {}
            )
        elif isinstance(value, int | float) and not isinstance(value, bool):
            mine = total.get(key)
            result[key] = (mine if isinstance(mine, int | float) else 0) + value
            result[key] -= old if isinstance(old, int | float) else 0
        else:
            result[key] = value
    return result
