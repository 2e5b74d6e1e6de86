"""The names of owners: the subject of their tokens, and for an EVE character also who has it."""

import re
from typing import Any

MAX_OWNER = 255
EVE_PREFIX = "CHARACTER:EVE:"
EVE_SUBJECT = re.compile(EVE_PREFIX + "([1-9][0-9]{0,17})")


def is_name(owner: str) -> bool:
    return bool(owner.strip()) and owner != "anonymous" and len(owner) <= MAX_OWNER and owner.isprintable()


def eve_owner(subject: str, owner: Any) -> str:
    """Return an EVE character's owner: whoever buys the character is another one (the claim `owner` changes then)."""
    return f"{subject}:{owner}" if isinstance(owner, str) else subject


def last_name(name: str) -> str:
    """Return the name itself, or for an EVE character what is behind all names that `eve_owner` may give it."""
    return f"{name};" if EVE_SUBJECT.fullmatch(name) else name
