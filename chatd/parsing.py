"""How settings are read: functions that take a variable's text and raise ValueError for what it can't be."""

import math
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

Parse = Callable[[str], Any]

HS256 = "HS256"
PUBLIC_KEY_ALGORITHMS = ("RS256", "ES256", "EdDSA")
MIN_SECRET = 32  # bytes
REGISTERED_CLAIMS = {"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "role", "roles", "owner"}
ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[1-9][0-9]{0,4})?")
DEFAULT_PORT = re.compile(r"(?<=^http:)(.+):80$|(?<=^https:)(.+):443$")
MODEL = re.compile(r"[A-Za-z0-9._:/@+-]{1,100}")  # a model's name, of a price or as its server tells it
DOLLARS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?")
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


def http_url(text: str) -> str:
    url("https", "http")(text)
    try:
        parts = urlsplit(text)
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("must be the URL of a server")
    return text


def crash_point(text: str) -> str:
    if not re.fullmatch(r"[a-z_]+(:[1-9][0-9]*)?", text):
        raise ValueError("must be NAME or NAME:N")
    return text


def path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("begins with ~USER, but there is no such user") from None


def words(text: str) -> tuple[str, ...]:
    """Return the items of a comma-separated list, which has some."""
    found = tuple(word for item in text.split(",") if (word := item.strip()))
    if not found:
        raise ValueError("must not be empty")
    return found


def origins(text: str) -> frozenset[str]:
    """Return web origins as browsers write them: in lower case, without the port that a scheme implies."""
    given = frozenset(DEFAULT_PORT.sub(r"\1\2", word.lower()) for word in words(text))
    if any(word != "*" and not ORIGIN.fullmatch(word) for word in given):
        raise ValueError("must be origins, scheme://host or scheme://host:port with https or http, or *")
    return given


def algorithms(text: str) -> tuple[str, ...]:
    known = (HS256, *PUBLIC_KEY_ALGORITHMS)
    if not set(words(text)) <= set(known):
        raise ValueError(f"must be a list of: {', '.join(known)}")
    return words(text)


def claim(text: str) -> str:
    if text in REGISTERED_CLAIMS:
        raise ValueError(f"{text} already has a meaning in every token")
    return text


def issuers(text: str) -> tuple[str, ...]:
    """EVE Online's SSO spells its name in three ways."""
    given = words(text)
    return tuple(dict.fromkeys([*given, *EVE_ISSUERS])) if set(given) & set(EVE_ISSUERS) else given


def jwks_url(text: str) -> str:
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or a password")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
        raise ValueError("must start with https://, or with http:// on this host")
    return text


def secret(text: str) -> str:
    if len(text.encode()) < MIN_SECRET:
        raise ValueError(f"must have {MIN_SECRET} bytes or more: openssl rand -hex 32")
    if "-----BEGIN" in text:
        raise ValueError("is a PEM key, not a shared secret: see CHATD_JWT_JWKS_URL")
    return text


def printable(text: str) -> str:
    """Return what is sent as a header."""
    if not re.fullmatch("[!-~]+", text):
        raise ValueError("must be printable ASCII without blanks")
    return text


def text(given: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in given):  # bytes that could not be decoded
        raise ValueError("must be UTF-8")
    return given


class Price(NamedTuple):
    """What a model costs, in US dollars per million tokens."""

    input: float
    output: float
    cache_write: float
    cache_read: float


def prices(text: str) -> dict[str, Price]:
    """Return the price of each model of a list of MODEL=INPUT/OUTPUT/CACHE_WRITE/CACHE_READ."""
    found: dict[str, Price] = {}
    for word in words(text):
        model, _, amounts = word.rpartition("=")
        dollars = amounts.split("/")
        if not MODEL.fullmatch(model) or len(dollars) != len(Price._fields) or not all(map(DOLLARS.fullmatch, dollars)):
            raise ValueError("must be MODEL=INPUT/OUTPUT/CACHE_WRITE/CACHE_READ, in US dollars per million tokens")
        if model in found:
            raise ValueError(f"{model} has two prices")
        found[model] = Price(*map(float, dollars))
    return found


def is_loopback(host: str) -> bool:
    """Tell whether a host (a name, or an address with or without brackets) is this machine's own."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return plain_address(name).is_loopback
    except ValueError:
        return False


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Return an address, one of IPv4 as that, even where a socket for both shows it as IPv6; raises ValueError."""
    address = ip_address(text)
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def place_of(url: str) -> str:
    """Return what may be told of a URL: neither user and password nor a query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")
