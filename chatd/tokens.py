"""Tokens (JWT, RFC 7519): who a request speaks for. What is accepted is said by the settings, never by the token."""

import logging
import math
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
from joserfc import jws, jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import Key, OctKey

from chatd.background import background
from chatd.config import Config
from chatd.errors import Unauthorized
from chatd.jwks import Jwks
from chatd.models import Caller
from chatd.owners import EVE_PREFIX, EVE_SUBJECT, eve_owner, is_name
from chatd.parsing import is_local

logger = logging.getLogger(__name__)

SKEW = 60  # seconds that an issuer's clock may be ahead
LAST_TIME = 253_402_300_799  # the end of the year 9999
MAX_CHARACTERS = 1000
EVE_AUDIENCE = "EVE Online"  # in the tokens of every application, so it tells nothing about whose they are
TYPES = ("jwt", "at+jwt")  # and not, say, a logout token
MALFORMED = (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
# RFC 9864 prefers `Ed25519`; providers say `EdDSA`.
warnings.filterwarnings("ignore", "EdDSA is deprecated", SecurityWarning)


class Keys(Protocol):
    """Where the keys come from: `find` may fetch; it raises Unavailable where it can't."""

    async def find(self, kid: object, algorithm: str) -> Key | None: ...


class Secret:
    """The one key that both sides know."""

    def __init__(self, secret: str) -> None:
        self.key = OctKey.import_key(secret)

    async def find(self, _kid: object, _algorithm: str) -> OctKey:
        return self.key


class Tokens:
    """Checks tokens."""

    def __init__(self, config: Config, keys: Keys) -> None:
        self.config, self.keys = config, keys
        # What a header says beyond what is known is to be ignored (RFC 7515, 4).
        self.registry = jws.JWSRegistry(algorithms=config.algorithms, strict_check_header=False)
        self.claims = jwt.JWTClaimsRegistry(None, SKEW, **required(config))

    async def check(self, token: str) -> Caller:
        """Return who a token speaks for; raises Unauthorized, and Unavailable where there are no keys."""
        try:
            kid, algorithm = self._read_header(token)
        except MALFORMED:
            raise Unauthorized from None
        if (key := await self.keys.find(kid, algorithm)) is None:
            raise Unauthorized
        try:
            claims = jwt.decode(token, key, registry=self.registry).claims
            self.claims.validate(claims)
        except MALFORMED:
            raise Unauthorized from None
        if claims["exp"] <= time.time():  # for its end there is no leeway: its streams end then, too
            raise Unauthorized("The token has expired.")
        return read_caller(claims, self.config.jwt_characters_claim)

    def _read_header(self, token: str) -> tuple[object, str]:
        """Return the key's id and the algorithm; raises Unauthorized, or what is wrong with it."""
        header = jws.extract_compact(token.encode(), registry=self.registry).headers()
        kid, algorithm, kind = header.get("kid"), header["alg"], header.get("typ", "JWT")
        if algorithm not in self.config.algorithms or kind.lower() not in TYPES or "crit" in header:
            raise Unauthorized
        return kid, algorithm


@asynccontextmanager
async def open_tokens(config: Config) -> AsyncIterator[Tokens]:
    """Check tokens by the secret, or by the keys of a provider, which are kept fresh."""
    if config.jwt_secret is not None:
        yield Tokens(config, Secret(config.jwt_secret))
        return
    assert config.jwt_jwks_url is not None
    if set(config.jwt_audience) <= {EVE_AUDIENCE}:
        logger.warning("tokens of all of the provider's applications are accepted: set CHATD_JWT_AUDIENCE to yours")
    async with aiohttp.ClientSession(trust_env=not is_local(config.jwt_jwks_url)) as session:
        jwks = Jwks(config.jwt_jwks_url, session)
        async with background(jwks.keep_fresh()):
            yield Tokens(config, jwks)


def required(config: Config) -> dict[str, jwt.ClaimsOption]:
    """Return which claims there have to be, and with which values."""
    options: dict[str, jwt.ClaimsOption] = {"sub": {"essential": True}, "exp": {"essential": True}}
    if config.jwt_issuer:
        options["iss"] = {"essential": True, "values": list(config.jwt_issuer)}
    if config.jwt_audience:
        audiences = [audience for audience in config.jwt_audience if audience != EVE_AUDIENCE]
        options["aud"] = {"essential": True, "values": audiences or [EVE_AUDIENCE]}
    return options


def read_caller(claims: dict[str, Any], characters_claim: str) -> Caller:
    """Return who checked claims speak for; raises Unauthorized for a subject or a claim that can't be."""
    subject = claims["sub"]
    eve = EVE_SUBJECT.fullmatch(subject)
    owner = eve_owner(subject, claims.get("owner")) if eve else subject
    if not is_name(owner) or (subject.startswith(EVE_PREFIX) and not eve):
        raise Unauthorized
    characters = read_characters(claims[characters_claim]) if characters_claim in claims else None
    return Caller(
        owner,
        characters=frozenset({int(eve[1])}) if eve else characters,
        admin=claims.get("role") == "admin" or "admin" in as_list(claims.get("roles")),
        expires=float(min(claims["exp"], LAST_TIME)),
    )


def read_characters(listed: Any) -> frozenset[int]:
    if not isinstance(listed, list) or len(listed) > MAX_CHARACTERS:
        raise Unauthorized
    if not all(type(character) is int and 0 < character < 1 << 63 for character in listed):
        raise Unauthorized
    return frozenset(listed)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def mint(config: Config, subject: str, characters: list[int], ttl: float, *, admin: bool) -> str:
    """Return a token that this chatd accepts, signed with its secret; raises Unauthorized where it would not."""
    now = time.time()
    claims: dict[str, Any] = {"sub": subject, "iat": math.floor(now), "exp": now + ttl}
    claims |= {config.jwt_characters_claim: characters} if characters else {}
    claims |= {"role": "admin"} if admin else {}
    claims |= {"iss": config.jwt_issuer[0]} if config.jwt_issuer else {}
    claims |= {"aud": list(config.jwt_audience)} if config.jwt_audience else {}
    read_caller(claims, config.jwt_characters_claim)
    assert config.jwt_secret is not None
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(config.jwt_secret), algorithms=["HS256"])
