"""The keys of a token provider, by its JSON Web Key Set (RFC 7517): fetched when needed, kept while it is away."""

import asyncio
import json
import logging
from typing import Any

import aiohttp
from joserfc.jwk import JWKRegistry, Key, RSAKey

from chatd.errors import Unavailable
from chatd.logs import describe
from chatd.parsing import place_of

logger = logging.getLogger(__name__)

MAX_AGE = 600.0  # seconds after which the keys are fetched again, so that a withdrawn one goes
REFRESH = 60.0  # seconds between two fetches at least, whatever unknown keys tokens name
FIRST_RETRY = 5.0  # as long as there are none at all
TIMEOUT = aiohttp.ClientTimeout(total=5)
MAX_STALE = 86_400.0  # seconds for which keys are used while the provider is away
MAX_SIZE = 1 << 18  # bytes
KEY_TYPES = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192  # RFC 7518, 3.3; and what is checked in a millisecond


class Jwks:
    """The keys at a URL."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session
        self.keys: list[Key] = []
        self.fetch: asyncio.Task[None] | None = None
        self.next_fetch = self.stale_at = 0.0  # by the loop's clock

    async def find(self, kid: object, algorithm: str) -> Key | None:
        """Return the key of an id, fetching the keys anew where none has it; raises Unavailable for none at all."""
        if not any(kid in (None, key.kid) for key in self.keys):
            await self.refresh()
        if not self.keys:
            raise Unavailable("There are no keys to check tokens with. Try again shortly.")
        fitting = [key for key in self.keys if kid in (None, key.kid) and fits(key, algorithm)]
        return fitting[0] if fitting and (kid is not None or len(fitting) == 1) else None

    async def keep_fresh(self) -> None:
        """Fetch the keys now and then, for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(MAX_AGE if self.keys else FIRST_RETRY)

    async def refresh(self) -> None:
        """Fetch the keys, unless that was tried just now. It goes on without whoever waits here, and who may leave."""
        loop = asyncio.get_running_loop()
        if self.fetch is None or self.fetch.done():
            if loop.time() < self.next_fetch:
                return
            self.next_fetch = loop.time() + (REFRESH if self.keys else FIRST_RETRY)
            self.fetch = asyncio.create_task(self._refresh())
        await asyncio.shield(self.fetch)

    async def _refresh(self) -> None:
        """Replace the keys, with none if there are no more; keep them, for a while, where that fails."""
        loop = asyncio.get_running_loop()
        try:
            self.keys = import_keys(await self._fetch())
            self.stale_at = loop.time() + MAX_STALE
            self.next_fetch = loop.time() + REFRESH
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError) as error:
            why = describe(error) if isinstance(error, aiohttp.ClientError) else error or type(error).__name__
            logger.warning("the keys at %s can't be fetched: %s", place_of(self.url), why)
            if loop.time() >= self.stale_at:
                self.keys = []

    async def _fetch(self) -> Any:
        async with self.session.get(self.url, timeout=TIMEOUT, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            body = await response.content.read(MAX_SIZE + 1)
            while len(body) <= MAX_SIZE and (more := await response.content.read(MAX_SIZE)):
                body += more
        if len(body) > MAX_SIZE:
            raise ValueError("too large")
        return json.loads(body)


def import_keys(document: Any) -> list[Key]:
    """Return the keys of a key set that can be used (RFC 7517, 5); raises ValueError for what is none."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("not a key set")
    keys = [key for data in listed if isinstance(data, dict) and (key := import_key(data)) is not None]
    if not keys:
        logger.warning("the key set holds no key that can be used")
    return keys


def import_key(data: dict[str, Any]) -> Key | None:
    """Return a public key for signatures; None for another one, one that is weak, or one that is not understood."""
    if data.get("kty") not in KEY_TYPES.values() or "d" in data or data.get("use", "sig") != "sig":
        return None
    if len(str(data.get("n", ""))) > MAX_RSA_BITS // 6 + 1:  # before anything is calculated with it
        return None
    try:
        key = JWKRegistry.import_key(data)
        return None if isinstance(key, RSAKey) and key.raw_value.key_size < MIN_RSA_BITS else key
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one key, the others are to work
        logger.warning("a key of the key set is left out: %s", type(error).__name__)
        return None


def fits(key: Key, algorithm: str) -> bool:
    return key.key_type == KEY_TYPES[algorithm] and key.get("alg") in (None, algorithm)
