"""The keys of a token provider, by its JSON Web Key Set (RFC 7517): fetched when needed, kept while it is away."""

import asyncio
import json
import logging
from typing import Any

import aiohttp
from joserfc.jwk import JWKRegistry, KeySet

from chatd.errors import Unavailable
from chatd.logs import describe
from chatd.parsing import place_of

logger = logging.getLogger(__name__)

MAX_AGE = 600.0  # seconds after which the keys are fetched again, so that a withdrawn one goes
REFRESH = 60.0  # seconds between two fetches at least, whatever unknown keys tokens name
FIRST_RETRY = 5.0  # as long as there are none at all
TIMEOUT = aiohttp.ClientTimeout(total=5)
MAX_SIZE = 1 << 18  # bytes


class Jwks:
    """The keys at a URL."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session
        self.keys: KeySet | None = None
        self.fetching = asyncio.Lock()
        self.next_fetch = 0.0  # by the loop's clock

    async def find(self, kid: object) -> KeySet:
        """Return the keys, fetched anew where `kid` is none of them; raises Unavailable where there are none."""
        if self.keys is None or not (kid is None or any(key.kid == kid for key in self.keys)):
            await self.refresh()
        if self.keys is None:
            raise Unavailable("The keys that tokens are checked with can't be fetched. Try again shortly.")
        return self.keys

    async def keep_fresh(self) -> None:
        """Fetch the keys now and then, for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(MAX_AGE if self.keys else FIRST_RETRY)

    async def refresh(self) -> None:
        """Fetch the keys, unless that was tried just now; keep those that are there where it fails."""
        loop = asyncio.get_running_loop()
        async with self.fetching:
            if loop.time() < self.next_fetch:
                return
            try:
                self.keys = import_keys(await self._fetch())
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError) as error:
                why = describe(error) if isinstance(error, aiohttp.ClientError) else error or type(error).__name__
                logger.warning("the keys at %s can't be fetched: %s", place_of(self.url), why)
            self.next_fetch = loop.time() + (REFRESH if self.keys else FIRST_RETRY)

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


def import_keys(document: Any) -> KeySet:
    """Return the keys of a key set, without those that are not understood (RFC 7517, 5); raises ValueError for none."""
    listed = document.get("keys") if isinstance(document, dict) else None
    keys = [key for data in listed or [] if isinstance(data, dict) and (key := import_key(data)) is not None]
    if not keys:
        raise ValueError("no keys in it")
    return KeySet(keys)


def import_key(data: dict[str, Any]) -> Any:
    try:
        return JWKRegistry.import_key(data)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one key, the others are to work
        logger.warning("a key of the key set is left out: %s", type(error).__name__)
        return None
