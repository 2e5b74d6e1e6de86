"""Join a continuation to the text that was shown before it, without a gap and without a repeat."""

from abc import ABC, abstractmethod

MIN_OVERLAP = 20  # characters; a shorter repeat is legitimate text


class Seam(ABC):
    """A filter on the pieces of a continuation; `feed` returns what may be shown, `close` what was held back."""

    def __init__(self) -> None:
        self.held = ""
        self.joined = False

    def feed(self, piece: str) -> str:
        if self.joined:
            return piece
        self.held += piece
        start = self.find()
        if start is None:
            return ""
        self.joined = True
        return self.held[start:]

    def close(self) -> str:
        """Return what is held and new, now that the text has ended and nothing more can tell."""
        return "" if self.joined else self.held[self.find(ended=True) or 0 :]

    @abstractmethod
    def find(self, *, ended: bool = False) -> int | None:
        """Return where new text starts in what is held, None while that is open."""


class PrefillSeam(Seam):
    """After a prefill: drop an echo of all of it (llama.cpp sends one), then the white space that was cut off it."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.prefill = shown.rstrip()
        self.cut = shown[len(self.prefill) :]

    def find(self, *, ended: bool = False) -> int | None:
        if not ended and len(self.held) < len(self.prefill) and self.prefill.startswith(self.held):
            return None
        start = len(self.prefill) if self.held.startswith(self.prefill) else 0
        space = common_prefix(self.held[start : start + len(self.cut)], self.cut)
        undecided = space < len(self.cut) and start + space == len(self.held)
        return None if undecided and not ended else start + space


class OverlapSeam(Seam):
    """After the request to go on: drop what the model repeats of the end of the text, if it is long enough."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.shown = shown

    def find(self, *, ended: bool = False) -> int | None:
        last_start = len(self.shown) - MIN_OVERLAP
        inside = self.shown.find(self.held, 0, len(self.shown) - 1)
        if 0 <= inside <= last_start and not ended:
            return None
        return self.overlap() if len(self.held) >= MIN_OVERLAP else 0

    def overlap(self) -> int:
        """Return how much of the end of the text is the beginning of what is held; the longest counts."""
        size = longest_overlap(self.shown[-len(self.held) :], self.held)
        return size if size >= MIN_OVERLAP else 0


def longest_overlap(text: str, following: str) -> int:
    """Return the length of the longest end of `text` that `following` begins with.

    In linear time, whatever repeats itself in them: Knuth, Morris and Pratt, "Fast pattern matching in strings", 1977.
    """
    borders = [0]  # of each beginning of `following`: the longest shorter one that it ends with
    size = 0
    for char in following[1:]:
        while size and following[size] != char:
            size = borders[size - 1]
        size += following[size] == char
        borders.append(size)
    size = 0
    for char in text:
        while size and (size == len(following) or following[size] != char):
            size = borders[size - 1]
        size += following[size] == char
    return size


def common_prefix(one: str, other: str) -> int:
    size = min(len(one), len(other))
    return next((i for i in range(size) if one[i] != other[i]), size)
