"""Tokens: which are accepted, whom they speak for, and what happens when the provider's keys change or it is away."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
from joserfc.jwk import OctKey, RSAKey

from chatd.keys import CHECK_TOKEN
from tests.chat_client import CHARACTER, Chat
from tests.conftest import Start
from tests.model_server import ModelServer, says
from tests.server_process import run
from tests.sse_client import events
from tests.token_provider import SECRET, Provider, bearer, claims_of, sign, token

EVE = "CHARACTER:EVE:95465499"


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    for algorithm in ("RS256", "ES256", "EdDSA"):
        provider.add(algorithm.lower(), algorithm)
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
async def guarded(start: Start) -> Chat:
    return await start(auth="jwt", jwt_secret=SECRET)


async def sees(chat: Chat, given: str, status: int = 200, path: str = "/agent/sessions") -> Any:
    return await chat.call("GET", path, status, headers=bearer(given))


async def test_without_a_token_nothing_is_answered_but_whether_it_lives(guarded: Chat) -> None:
    async with guarded.client.get("/agent/sessions") as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (await response.json())["code"] == "unauthorized"
    await guarded.call("GET", "/healthz")
    await guarded.call("GET", "/readyz")
    await guarded.call("GET", "/agent/nothing", 401)


async def test_a_token_opens_what_is_its_subjects(guarded: Chat, model: ModelServer) -> None:
    model.default = says("Hello")
    alice, bob = bearer(token("alice")), bearer(token("bob"))
    answer = await guarded.call("POST", "/agent/chat", json=guarded.body("hi"), headers=alice)
    path = f"/agent/chat/history/{answer['session_id']}"
    assert len((await guarded.call("GET", path, headers=alice))["messages"]) == 2
    foreign = await guarded.call("GET", path, 404, headers=bob)
    missing = await guarded.call("GET", f"/agent/chat/history/sess-{'0' * 32}", 404, headers=bob)
    assert foreign == missing
    assert (await guarded.call("GET", "/agent/sessions", headers=bob))["sessions"] == []


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": time.time() - 1},
        {"exp": "soon"},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": -1},
        {"sub": None},
        {"sub": ""},
        {"sub": " "},
        {"sub": 7},
        {"sub": "anonymous"},
        {"sub": "a\nb"},
        {"sub": "a\0b"},
        {"sub": "\ud800"},
        {"sub": "x" * 256},
        {"nbf": time.time() + 3600},
        {"iat": time.time() + 3600},
        {"sub": "CHARACTER:EVE:05"},
        {"sub": "CHARACTER:EVE:7:hash="},
        {"sub": "CHARACTER:EVE:7", "owner": "x" * 250},
        {"sub": "CHARACTER:EVE:7", "owner": "a\nb"},
        {"character_ids": None},
        {"character_ids": "7"},
        {"character_ids": 7},
        {"character_ids": [True]},
        {"character_ids": ["7"]},
        {"character_ids": [0]},
        {"character_ids": [1 << 63]},
        {"character_ids": [7.0]},
    ],
)
async def test_claims_that_are_refused(guarded: Chat, claims: dict[str, Any]) -> None:
    given = claims_of() | claims
    for required in ("sub", "exp"):
        if given[required] is None:
            del given[required]
    async with guarded.client.get("/agent/sessions", headers=bearer(raw_token(given))) as response:
        assert response.status == 401
        assert "invalid_token" in response.headers["WWW-Authenticate"]


def raw_token(claims: dict[str, Any]) -> str:
    """Return a token with claims that a careful library would not sign."""
    parts = f"{encoded({'alg': 'HS256'})}.{encoded(claims)}"
    signature = OctKey.import_key(SECRET)
    return sign_parts(parts, signature)


def sign_parts(parts: str, key: OctKey) -> str:
    mac = hmac.new(key.raw_value, parts.encode(), hashlib.sha256).digest()
    return f"{parts}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        f"{encoded({'alg': 'none'})}.{encoded(claims_of())}.",
        f"{encoded({'alg': 'None'})}.{encoded(claims_of())}.",
        f"{encoded([])}.{encoded(claims_of())}.x",
        f"{encoded('alg')}.{encoded(claims_of())}.x",
        f"{encoded({'alg': ['HS256']})}.{encoded(claims_of())}.x",
        sign_parts(f"{encoded({'alg': 'HS256', 'crit': ['exp']})}.{encoded(claims_of())}", OctKey.import_key(SECRET)),
        sign_parts(f"{encoded({'alg': 'HS256', 'crit': []})}.{encoded(claims_of())}", OctKey.import_key(SECRET)),
        sign_parts(
            f"{encoded({'alg': 'HS256', 'typ': 'logout+jwt'})}.{encoded(claims_of())}", OctKey.import_key(SECRET)
        ),
        sign_parts(f"{encoded({'alg': 'HS256', 'typ': 7})}.{encoded(claims_of())}", OctKey.import_key(SECRET)),
        sign(claims_of(), OctKey.import_key("another secret that is long enough to be one")),
        sign(claims_of(), OctKey.import_key(SECRET), "HS512"),
        sign_parts(f"{encoded({'alg': 'HS256'})}.{encoded([1])}", OctKey.import_key(SECRET)),
        sign_parts(
            f"{encoded({'alg': 'HS256'})}.{base64.urlsafe_b64encode(b'[' * 5000).decode()}", OctKey.import_key(SECRET)
        ),
    ],
)
async def test_tokens_that_are_none(guarded: Chat, given: str) -> None:
    await sees(guarded, given, 401)


async def test_how_a_token_is_to_be_sent(guarded: Chat) -> None:
    good = token()
    await guarded.call("GET", "/agent/sessions", 200, headers={"Authorization": f"bearer  {good} "})
    for header in (f"Basic {good}", good, f"Bearer {good}, Bearer {good}", "Bearer", f"Bearer {good} x"):
        await guarded.call("GET", "/agent/sessions", 401, headers={"Authorization": header})
    await guarded.call("GET", "/agent/sessions", 401, headers=[("Authorization", f"Bearer {good}")] * 2)
    await guarded.call("GET", f"/agent/sessions?access_token={good}", 401)


async def test_issuer_and_audience(start: Start) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET, jwt_issuer=("https://id.example",), jwt_audience=("chat", "talk"))
    good: dict[str, Any] = {"iss": "https://id.example", "aud": "chat"}
    await sees(chat, token(**good))
    await sees(chat, token(**good | {"aud": ["other", "talk"]}))
    for issuer in (None, "https://id.example/", ["https://id.example"]):
        await sees(chat, token(**good | {"iss": issuer}), 401)
    for audience in (None, "cha", ["x"], 1):
        await sees(chat, token(**good | {"aud": audience}), 401)


async def test_eve_onlines_sso(start: Start, provider: Provider) -> None:
    issuers = ("https://login.eveonline.com", "https://login.eveonline.com/", "login.eveonline.com")
    chat = await start(
        auth="jwt", jwt_jwks_url=provider.url, jwt_issuer=issuers, jwt_audience=("my-client", "EVE Online")
    )
    eve = {"aud": ["my-client", "EVE Online"], "name": "Some Pilot", "owner": "8PmzCeTKb4VFUDrHLc/AeZXDSWM="}
    for issuer in issuers:
        given = bearer(provider.token("rs256", EVE, iss=issuer, **eve))
        body = {"character_id": 95465499}
        session = await chat.call("POST", "/agent/session", 201, json=body, headers=given)
        problem = await chat.call("POST", "/agent/session", 403, json={"character_id": 7}, headers=given)
        assert problem["code"] == "character_forbidden"
    other_application = {**eve, "aud": ["their-client", "EVE Online"]}
    await sees(chat, provider.token("rs256", EVE, iss=issuers[0], **other_application), 401)
    sold = {**eve, "owner": "another owner's hash"}
    path = f"/agent/session/{session['session_id']}"
    await sees(chat, provider.token("rs256", EVE, iss=issuers[0], **eve), 200, path)
    await sees(chat, provider.token("rs256", EVE, iss=issuers[0], **sold), 404, path)


async def test_each_of_the_providers_keys(start: Start, provider: Provider) -> None:
    chat = await start(auth="jwt", jwt_jwks_url=provider.url, jwt_algorithms=("RS256", "ES256", "EdDSA"))
    for kid in provider.keys:
        await sees(chat, provider.token(kid))
    assert provider.fetches == 1


async def test_a_public_key_is_no_secret(start: Start, provider: Provider) -> None:
    chat = await start(auth="jwt", jwt_jwks_url=provider.url)
    for encoding in ("PEM", "DER"):
        public = provider.keys["rs256"].as_bytes(encoding=encoding, private=False)
        parts = f"{encoded({'alg': 'HS256', 'kid': 'rs256'})}.{encoded(claims_of())}"
        await sees(chat, sign_parts(parts, OctKey.import_key(base64.b64encode(public))), 401)
    await sees(chat, provider.token("eddsa"), 401)  # not among the algorithms by default
    stranger = Provider()
    stranger.add("rs256", "RS256")
    await sees(chat, stranger.token("rs256"), 401)


async def test_a_flood_of_unknown_keys_is_one_fetch(start: Start, provider: Provider) -> None:
    chat = await start(auth="jwt", jwt_jwks_url=provider.url)
    await sees(chat, provider.token("rs256"))
    stranger = Provider()
    stranger.add("unknown", "ES256")
    await asyncio.gather(*(sees(chat, stranger.token("unknown"), 401) for _ in range(30)))
    assert provider.fetches == 1


async def test_a_new_key_is_fetched_when_it_is_first_seen(
    start: Start, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.jwks.REFRESH", 0.2)
    chat = await start(auth="jwt", jwt_jwks_url=provider.url)
    await sees(chat, provider.token("rs256"))
    provider.add("new", "ES256")
    del provider.keys["rs256"]
    await asyncio.sleep(0.2)
    await sees(chat, provider.token("new"))
    assert provider.fetches == 2


async def test_keys_that_are_known_serve_while_the_provider_is_away(start: Start, provider: Provider) -> None:
    chat = await start(auth="jwt", jwt_jwks_url=provider.url)
    given = provider.token("rs256")
    await sees(chat, given)
    await provider.stop()
    await sees(chat, given)
    stranger = Provider()
    stranger.add("unknown", "ES256")
    await sees(chat, stranger.token("unknown"), 401)


NO_KEYS: list[Any] = [
    [],
    {},
    {"keys": 5},
    {"keys": []},
    {"keys": "x"},
    {"keys": [1, {"kty": "AKP"}, {"kty": "RSA"}, {"kty": ["RSA"]}]},
    {"keys": [{"kty": "RSA", "e": "AQAB", "n": "AQ" * 1000}]},
    {"keys": [{"kty": "oct", "k": encoded("a secret that the provider tells everyone")}]},
]


@pytest.mark.parametrize("document", NO_KEYS)
async def test_without_any_key_nothing_can_be_checked(start: Start, provider: Provider, document: Any) -> None:
    provider.document = document
    chat = await start(auth="jwt", jwt_jwks_url=provider.url)
    for _ in range(3):
        problem = await sees(chat, provider.token("rs256"), 503)
        assert problem["code"] == "unavailable"
    assert provider.fetches == 1


async def test_a_provider_that_fails_at_first(
    start: Start, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.jwks.FIRST_RETRY", 0.1)
    provider.failing = True
    chat = await start(auth="jwt", jwt_jwks_url=provider.url)
    await sees(chat, provider.token("rs256"), 503)
    provider.failing = False
    await asyncio.sleep(0.2)
    await sees(chat, provider.token("rs256"))


async def test_a_stream_waits_for_the_first_keys(
    start: Start, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An EventSource behind a proxy that adds the token would give up after a 503."""
    monkeypatch.setattr("chatd.jwks.FIRST_RETRY", 0.1)
    chat = await start(auth="jwt", jwt_jwks_url=provider.url, heartbeat=0.2)
    alice, eve = bearer(provider.token("rs256")), bearer(provider.token("rs256", "eve"))
    answer = await chat.call("POST", "/agent/chat", json=chat.body("hi"), headers=alice)
    provider.failing = True
    chat = await start(auth="jwt", jwt_jwks_url=provider.url, heartbeat=0.2)
    path = f"/agent/chat/stream/{answer['session_id']}"
    await chat.call("GET", path, 401, headers=bearer("nonsense"))
    async with (
        chat.client.get(path, headers=alice | {"Last-Event-ID": "nonsense"}) as response,
        chat.client.get(path, headers=eve | {"Last-Event-ID": "nonsense"}) as foreign,
    ):
        assert [await response.content.readline() for _ in range(2)] == [b"retry: 1000\n", b": ping\n"]
        provider.failing = False
        assert [event.kind async for event in events(response)] == ["reset", "done"]
        assert b"data" not in await foreign.read()


async def test_the_command_makes_tokens_that_are_accepted(start: Start) -> None:
    settings = {"CHATD_JWT_SECRET": SECRET, "CHATD_DATA_DIR": "/nonexistent"}
    chat = await start(auth="jwt", jwt_secret=SECRET)
    given = ["--ttl", "600", "--admin", "--character", "7", "8"]
    for options, ttl, admin, characters in (([], 3600, False, None), (given, 600, True, [7, 8])):
        begun = time.time()
        status, minted = await run("token", "--sub", "alice", *options, **settings)
        assert status == 0
        me = await sees(chat, minted.strip(), path="/agent/me")
        assert (me["owner"], me["admin"], me["characters"]) == ("alice", admin, characters)
        assert abs(datetime.fromisoformat(me["expires_at"]).timestamp() - begun - ttl) < 100
    for wrong in (["--ttl", "-5"], ["--ttl", "0"], ["--ttl", "nan"], ["--sub", ""], ["--character", "-1"]):
        status, told = await run("token", "--sub", "alice", *wrong, **settings)
        assert (status, wrong[0] in told) == (2, True), told


async def test_characters(start: Start) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET)
    own = bearer(token(character_ids=[CHARACTER, 8]))
    session = await chat.call("POST", "/agent/session", 201, json={"character_id": CHARACTER}, headers=own)
    body = chat.body("hi", session["session_id"])
    await chat.call("POST", "/agent/chat", 200, json=body, headers=own)
    problem = await chat.call("POST", "/agent/chat", 403, json={**body, "character_id": 8}, headers=own)
    assert problem["code"] == "character_forbidden"
    problem = await chat.call("POST", "/agent/chat", 403, json=body, headers=bearer(token(character_ids=[8])))
    assert problem["code"] == "character_forbidden"
    await chat.call("POST", "/agent/chat", 403, json=body, headers=bearer(token(character_ids=[9, 10])))
    await chat.call("POST", "/agent/chat", 403, json=body, headers=bearer(token(character_ids=[])))
    await chat.call("POST", "/agent/chat", 200, json=body, headers=bearer(token()))


async def test_a_character_may_be_required(start: Start) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET, require_character=True)
    own, without = bearer(token(character_ids=[CHARACTER])), bearer(token())
    session = await chat.call("POST", "/agent/session", 201, json={"character_id": CHARACTER}, headers=own)
    body = chat.body("hi", session["session_id"])
    await chat.call("POST", "/agent/chat", 200, json=body, headers=without)
    await chat.call("POST", "/agent/chat", 403, json=chat.body("hi"), headers=without)
    await chat.call("POST", "/agent/chat", 403, json={**body, "character_id": 8}, headers=without)
    await chat.call("POST", "/agent/session", 403, json={"character_id": CHARACTER}, headers=without)


async def test_another_claim_for_characters(start: Start) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET, jwt_characters_claim="pilots")
    await chat.call("POST", "/agent/session", 403, json={"character_id": 7}, headers=bearer(token(pilots=[8])))
    await chat.call("POST", "/agent/session", 201, json={"character_id": 7}, headers=bearer(token(character_ids=[8])))


@pytest.mark.filterwarnings("ignore:Key size should be")
async def test_keys_that_are_left_out(start: Start, provider: Provider) -> None:
    weak = RSAKey.generate_key(1024, {"kid": "weak", "alg": "RS256"})
    private = RSAKey.generate_key(2048, {"kid": "private", "alg": "RS256"})
    encrypting = RSAKey.generate_key(2048, {"kid": "encrypting", "use": "enc"})
    published = [key.as_dict(private=key is private) for key in (weak, private, encrypting, provider.keys["rs256"])]
    provider.document = {"keys": published}
    chat = await start(auth="jwt", jwt_jwks_url=provider.url)
    await sees(chat, provider.token("rs256"))
    for key in (weak, private):
        await sees(chat, sign(claims_of(), key, "RS256", kid=key.kid), 401)


async def test_two_keys_of_one_id(start: Start, provider: Provider) -> None:
    keys = [provider.keys["es256"], provider.keys["rs256"]]
    provider.document = {"keys": [key.as_dict(private=False) | {"kid": "same"} for key in keys]}
    chat = await start(auth="jwt", jwt_jwks_url=provider.url)
    for key in keys:
        await sees(chat, sign(claims_of(), key, key.alg, kid="same"))
        await sees(chat, sign(claims_of(), key, key.alg))


async def test_keys_that_the_provider_withdraws(
    start: Start, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.jwks.REFRESH", 0.1)
    monkeypatch.setattr("chatd.jwks.MAX_AGE", 0.1)
    monkeypatch.setattr("chatd.jwks.MAX_STALE", 2)
    chat = await start(auth="jwt", jwt_jwks_url=provider.url)
    await sees(chat, provider.token("rs256"))
    provider.failing = True
    await asyncio.sleep(0.2)
    await sees(chat, provider.token("rs256"))
    await asyncio.sleep(2.2)
    await sees(chat, provider.token("rs256"), 503)
    provider.failing, provider.document = False, {"keys": []}
    await asyncio.sleep(0.2)
    await sees(chat, provider.token("rs256"), 503)


async def test_who_hangs_up_makes_no_more_fetches(start: Start, provider: Provider) -> None:
    chat = await start(auth="jwt", jwt_jwks_url=provider.url)
    await sees(chat, provider.token("rs256"))
    stranger = Provider()
    stranger.add("unknown", "ES256")
    tokens: Any = chat.client.server.app[CHECK_TOKEN]
    tokens.__self__.keys.next_fetch, provider.delay = 0.0, 3
    for _ in range(10):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await sees(chat, stranger.token("unknown"))
    await sees(chat, provider.token("rs256"))
    assert provider.fetches == 2
