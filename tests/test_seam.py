"""The seam between a text and its continuation, however the continuation is cut into pieces."""

import itertools
import time

import pytest

from chatd.seam import OverlapSeam, PrefillSeam, Seam, longest_overlap


def join(seam: Seam, continuation: str, size: int) -> str:
    pieces = [continuation[at : at + size] for at in range(0, len(continuation), size)]
    return "".join(seam.feed(piece) for piece in pieces) + seam.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("shown", "continuation", "expected"),
    [
        ("One two", " three", " three"),
        ("One two", "One two three", " three"),  # an echo of all of it
        ("One two", "One too", "One too"),  # no echo
        ("One two", "One", "One"),  # ended before it could be told
        ("One two", "One two", ""),
        ("One two ", "three", "three"),
        ("One two ", " three", "three"),
        ("One two\n\n", "\n\nthree", "three"),
        ("One two\n\n", "\nthree", "three"),
        ("One two\n\n", "One two\n\nthree", "three"),
        ("One two\n\n", "One two", ""),
        ("One two\n", "  three", "  three"),
        ("ha ha", " ha ha", " ha ha"),
        (" \n", " \nOne", "One"),
        (" \n", "One", "One"),
        ("t0001 t0002 ", "t0003 ", "t0003 "),
    ],
)
def test_after_a_prefill(shown: str, continuation: str, expected: str, size: int) -> None:
    assert join(PrefillSeam(shown), continuation, size) == expected


LONG = "The quick brown fox jumps over the lazy dog and runs away."


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("shown", "continuation", "expected"),
    [
        (LONG, " Then it sleeps.", " Then it sleeps."),
        (LONG, "the lazy dog and runs away. Then it sleeps.", " Then it sleeps."),
        (LONG, LONG + " Then it sleeps.", " Then it sleeps."),
        (LONG, LONG, ""),
        (LONG, "runs away. Then", "runs away. Then"),  # nineteen characters or less are legitimate
        (LONG, "The quick brown bear", "The quick brown bear"),
        (LONG, "The quick", "The quick"),
        ("ha" * 30, "ha" * 30 + "!", "!"),
        ("short", "short and sweet", "short and sweet"),
    ],
)
def test_after_the_request_to_go_on(shown: str, continuation: str, expected: str, size: int) -> None:
    assert join(OverlapSeam(shown), continuation, size) == expected


def longest(text: str, following: str) -> int:
    return max(n for n in range(min(len(text), len(following)) + 1) if following.startswith(text[len(text) - n :]))


def test_the_longest_overlap_of_words_of_two_letters() -> None:
    words = ["".join(letters) for size in range(1, 6) for letters in itertools.product("ab", repeat=size)]
    for text, following in itertools.product(words, words):
        assert longest_overlap(text, following) == longest(text, following)


def test_a_run_of_dashes_takes_no_time() -> None:
    dashes = "-" * 262_144
    begun = time.process_time()
    assert join(OverlapSeam("Title\n" + dashes), dashes + " and on", 65_536) == " and on"
    assert time.process_time() - begun < 1
