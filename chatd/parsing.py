"""How settings are read: functions that take a variable's text and raise ValueError for what it can't be."""

import math
import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Parse = Callable[[str], Any]

HS256 = "HS256"
PUBLIC_KEY_ALGORITHMS = ("RS256", "ES256", "EdDSA")
MIN_SECRET = 32  # bytes
EVE_ISSUERS = ("https://login.eveonline.com", "https://login.eveonline.com/", "login.eveonline.com")


def number(kind: Callable[[str], float], low: float, high: float) -> Parse:
    def parse(text: str) -> float:
        value = kind(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(f"must be between {low:g} and {high:g}")
        return value

    return parse


def integer(low: int, high: int) -> Parse:
    return number(int, low, high)


def seconds(low: float = 0.001, high: float = 86_400) -> Parse:
    return number(float, low, high)


def one_of(*choices: str) -> Parse:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of: {', '.join(choices)}")
        return text.lower()

    return parse


def flag(text: str) -> bool:
    return one_of("0", "1")(text) == "1"  # type: ignore[no-any-return]


def url(*schemes: str) -> Parse:
    def parse(text: str) -> str:
        if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return text

    return parse


def crash_point(text: str) -> str:
    if not re.fullmatch(r"[a-z_]+(:[1-9][0-9]*)?", text):
        raise ValueError("must be NAME or NAME:N")
    return text


def path(text: str) -> Path:
    return Path(text).expanduser()


def words(text: str) -> tuple[str, ...]:
    """Return the items of a comma-separated list."""
    return tuple(word for item in text.split(",") if (word := item.strip()))


def algorithms(text: str) -> tuple[str, ...]:
    known = (HS256, *PUBLIC_KEY_ALGORITHMS)
    if not set(words(text)) <= set(known):
        raise ValueError(f"must be of: {', '.join(known)}")
    return words(text)


def issuers(text: str) -> tuple[str, ...]:
    """EVE Online's SSO spells its name in three ways."""
    given = words(text)
    return tuple(dict.fromkeys([*given, *EVE_ISSUERS])) if set(given) & set(EVE_ISSUERS) else given


def jwks_url(text: str) -> str:
    parts = urlsplit(text)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
        raise ValueError("must start with https://, or http:// and be this host")
    return text


def secret(text: str) -> str:
    if len(text.encode()) < MIN_SECRET:
        raise ValueError(f"must have {MIN_SECRET} bytes at least: openssl rand -hex 32")
    return text


def is_loopback(host: str) -> bool:
    """Tell whether a host (a name, or an address with or without brackets) is this machine's own."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")
