"""A provider of tokens: signs them, and publishes its keys at a URL over a real socket."""

import asyncio
import time
from typing import Any

from aiohttp import web
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

ALGORITHMS: dict[str, Any] = {"RS256": RSAKey, "ES256": ECKey, "EdDSA": OKPKey}
SIZES: dict[str, Any] = {"RS256": 2048, "ES256": "P-256", "EdDSA": "Ed25519"}
SECRET = "a secret that both sides know, and nobody else"


def claims_of(subject: str = "alice", **claims: Any) -> dict[str, Any]:
    """Return claims that are accepted; None takes one out."""
    given = {"sub": subject, "exp": time.time() + 3600, **claims}
    return {name: value for name, value in given.items() if value is not None}


def sign(claims: dict[str, Any], key: Any, algorithm: str = "HS256", **header: Any) -> str:
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    return jwt.encode({"alg": algorithm, **header}, claims, key, registry=registry)


def token(subject: str = "alice", **claims: Any) -> str:
    """Return a token that is signed with the secret."""
    return sign(claims_of(subject, **claims), OctKey.import_key(SECRET))


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


class Provider:
    """Keys by their ids; `delay` and `failing` are how it troubles those that ask."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.fetches = 0
        self.delay = 0.0
        self.failing = False
        self.document: Any = None  # in place of the keys

    def add(self, kid: str, algorithm: str) -> None:
        self.keys[kid] = ALGORITHMS[algorithm].generate_key(SIZES[algorithm], {"kid": kid, "alg": algorithm})

    def token(self, kid: str, subject: str = "alice", **claims: Any) -> str:
        key = self.keys[kid]
        return sign(claims_of(subject, **claims), key, key.alg, kid=kid)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/jwks", self._jwks)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}/jwks"

    async def stop(self) -> None:
        await self.runner.cleanup()

    async def _jwks(self, _request: web.Request) -> web.Response:
        self.fetches += 1
        await asyncio.sleep(self.delay)
        if self.failing:
            raise web.HTTPBadGateway
        published = {"keys": [key.as_dict(private=False) for key in self.keys.values()]}
        return web.json_response(published if self.document is None else self.document)
