"""`chatd doctor URL` through a real nginx: set right, all is well; set wrong, it is found by name."""

import asyncio
import datetime
import ipaddress
import math
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chatd.config import Config
from chatd.doctor.client import Client, Frame
from chatd.doctor.command import check_deployed
from chatd.doctor.proxy import check_auth
from chatd.doctor.streams import Heard, look_at_silence
from chatd.doctor.turn import TurnCheck, check_turn
from chatd.handlers.stream_test import HEARTBEATS, MAX_SILENCE
from chatd.keys import LIMITS
from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.doctor import Said, ask_doctor, run_doctor
from tests.faults.nginx import CONFIGURATION, nginx
from tests.model_server import ModelServer, fails, says
from tests.test_stop import silent
from tests.token_provider import SECRET, bearer, token

CLOSED = "location = /metrics {{ return 404; }} location = /readyz {{ return 404; }} "
CLOSED_BELOW = CLOSED.replace("= /", "= /deep/er/")
ROOT = "location / {{"
RIGHT = CONFIGURATION.replace(ROOT, CLOSED + CLOSED_BELOW + ROOT)
ALL = {
    *("reachable", "request id", "TLS", "inner paths", "auth"),
    *("stream", "upstream", "compression", "buffering", "heartbeats", "resume", "stop"),
}
UNBUFFERED = "proxy_buffering off;"
BUFFERED = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"
COMPRESSED = "gzip on; gzip_min_length 0; gzip_types text/event-stream;"
OPEN = "location = /metrics {{ return 200 'chatd_turns 1'; }}"
ELSEWHERE = "chat.example"  # reached by a forward proxy, which knows where it is
Proxy = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
async def guarded(start: Start, model: ModelServer) -> Chat:
    model.default = says(*(f"word {n} " for n in range(300)), delay=0.02)
    return await start(auth="jwt", jwt_secret=SECRET, heartbeat=1, rate_streams=100)


@pytest.fixture
def proxy(guarded: Chat, tmp_path: Path) -> Proxy:
    """Return what starts an nginx in front of chatd."""
    return partial(nginx, tmp_path / "nginx", [guarded.client.port])


def wrong(*changes: tuple[str, str]) -> str:
    """Return the right configuration with parts of it replaced."""
    configuration = RIGHT
    for old, new in changes:
        assert old in configuration
        configuration = configuration.replace(old, new)
    return configuration


async def doctor(config: Config, url: str) -> Said:
    secret = replace(config, jwt_secret=SECRET)
    return await ask_doctor(lambda report: check_deployed(secret, url, report))


async def sessions(chat: Chat, owner: str = "chatd-doctor") -> int:
    listed = await chat.call("GET", "/agent/sessions", headers=bearer(token(owner)))
    return len(listed["sessions"])


@pytest.mark.parametrize("path", ["/", "/deep/er"])
async def test_all_is_well(proxy: Proxy, guarded: Chat, path: str) -> None:
    async with proxy(configuration=RIGHT) as url:
        said = await run_doctor(url + path, CHATD_JWT_SECRET=SECRET)
        assert (said.status, said.bad()) == (0, {}), said.output
        assert said.found.keys() == ALL
        assert said.output.splitlines()[-1].strip() == "11 ok, 0 warning, 0 FAILED"
        assert "chatd-doctor" in said.found["auth"][1]
        assert await sessions(guarded) == 0
        assert SECRET not in said.output


HTTP_1_0 = ("proxy_http_version 1.1", "proxy_http_version 1.0")
# What is changed in the right configuration, and what is found then.
WRONG: list[tuple[str, dict[str, str]]] = [
    (wrong(HTTP_1_0), {"upstream": "FAILED"}),
    (wrong(HTTP_1_0, (UNBUFFERED, BUFFERED)), {"upstream": "FAILED", "buffering": "FAILED"}),
    (wrong((UNBUFFERED, UNBUFFERED + COMPRESSED)), {"compression": "warning"}),
    (
        wrong((UNBUFFERED, BUFFERED + COMPRESSED)),
        {"compression": "warning", "buffering": "FAILED", "stop": "warning"},  # all of the answer comes at its end
    ),
    (wrong(("proxy_read_timeout 75s", "proxy_read_timeout 500ms")), {"idle time-out": "FAILED"}),
    (wrong(("location = /metrics {{ return 404; }}", OPEN)), {"inner paths": "warning"}),
    (wrong(("location = /readyz {{ return 404; }}", "")), {"inner paths": "warning"}),
    (wrong((UNBUFFERED, 'proxy_set_header X-Request-ID "";')), {"request id": "warning"}),
    (wrong((UNBUFFERED, 'proxy_set_header Last-Event-ID "";')), {"resume": "FAILED"}),
    (wrong((ROOT, "location /agent/chat/stop/ {{ return 405; }}" + ROOT)), {"turn": "FAILED"}),
    (wrong((ROOT, "location = /agent/stream-test {{ return 404; }}" + ROOT)), {"stream": "FAILED"}),
]


async def test_what_is_wrong_is_found(guarded: Chat, config: Config, tmp_path: Path) -> None:
    """One nginx for each, all at once: most of the time is waiting."""

    async def ask(number: int, configuration: str) -> Said:
        directory = tmp_path / f"nginx-{number}"
        async with nginx(directory, [guarded.client.port], configuration=configuration) as url:
            return await doctor(config, url)

    asked = await asyncio.gather(*(ask(number, configuration) for number, (configuration, _) in enumerate(WRONG)))
    for said, (_, found) in zip(asked, WRONG, strict=True):
        assert said.bad() == found, said.output
        assert said.status == (1 if "FAILED" in found.values() else 0)
    assert await sessions(guarded) == 0


async def test_what_is_said_about_it(proxy: Proxy, config: Config) -> None:
    configuration = wrong(("75s", "500ms"), ("proxy_http_version 1.1", "proxy_http_version 1.0"))
    async with proxy(configuration=configuration) as url:
        said = await doctor(config, url)
    assert "heartbeats come every 1 s" in said.found["idle time-out"][1]
    assert said.advice("idle time-out").startswith("nginx: proxy_read_timeout 5s;")
    advice = "nginx, in the `server` block: proxy_http_version 1.1; proxy_set_header Connection close;"
    assert said.advice("upstream") == advice
    site = (Path(__file__).parent.parent / "deploy/nginx.conf").read_text()
    for line in advice.partition(": ")[2].split("; "):
        assert line.removesuffix(";") + ";" in site


async def test_tokens(proxy: Proxy, guarded: Chat) -> None:
    async with proxy(configuration=RIGHT) as url:
        said = await run_doctor(url)
        assert (said.status, said.bad()) == (1, {"auth": "FAILED"})
        assert "CHATD_TOKEN" in said.advice("auth")
        said = await run_doctor(url, CHATD_TOKEN="a-canary")
        assert (said.status, said.bad()) == (1, {"auth": "FAILED"})
        assert "canary" not in said.output
        said = await run_doctor(url, CHATD_TOKEN=token("alice", character_ids=[7]))
        assert (said.status, said.bad()) == (0, {}), said.output
        assert "alice" in said.found["auth"][1]
        assert await sessions(guarded, "alice") == 0


async def test_a_server_without_tokens(start: Start, model: ModelServer, config: Config, tmp_path: Path) -> None:
    model.default = says(*("word " for _ in range(100)), delay=0.02)
    chat = await start(heartbeat=1)
    said = await ask_doctor(lambda report: check_deployed(config, str(chat.client.make_url("/")), report))
    assert (said.status, said.bad()) == (0, {}), said.output
    assert "no proxy is seen" in said.found["inner paths"][1]
    tells = "proxy_set_header X-Forwarded-For $remote_addr;"
    async with nginx(tmp_path / "nginx", [chat.client.port], directives=tells, configuration=RIGHT) as url:
        said = await doctor(config, url)
    assert (said.status, said.bad()) == (1, {"reachable": "FAILED"}), said.output


async def test_a_token_is_not_sent_in_the_clear(proxy: Proxy, tmp_path: Path) -> None:
    logging = 'log_format tokens "$uri [$http_authorization]"; access_log {directory}/tokens.log tokens;'
    async with proxy(configuration=wrong(("access_log {directory}/access.log;", logging))) as url:
        said = await run_doctor(f"http://{ELSEWHERE}", CHATD_JWT_SECRET=SECRET, http_proxy=url, no_proxy="")
    assert (said.status, said.bad()) == (1, {"TLS": "FAILED"}), said.output
    assert said.found.keys() == {"reachable", "request id", "TLS"}
    assert (tmp_path / "nginx/tokens.log").read_text().splitlines() == ["/healthz [-]", "/openapi.json [-]"]


async def test_a_session_that_is_left_is_named(proxy: Proxy, guarded: Chat, config: Config) -> None:
    """What was wrong before is told, too."""
    closed = "location /agent/session/ {{ return 405; }} location /agent/chat/stop/ {{ return 405; }}"
    async with proxy(configuration=wrong((ROOT, closed + ROOT))) as url:
        said = await doctor(config, url)
    assert (said.status, said.bad()) == (1, {"turn": "FAILED", "session": "warning"}), said.output
    assert "/agent/chat/stop/" in said.found["turn"][1]
    listed = await guarded.call("GET", "/agent/sessions", headers=bearer(token("chatd-doctor")))
    [left] = listed["sessions"]
    assert left["session_id"] in said.found["session"][1]


@pytest.mark.parametrize(
    ("path", "what", "detail"),
    [
        ("/agent/stream-test", "stream", "is answered with 301"),
        ("/healthz", "reachable", "redirects to http://127.0.0.1:9/moved"),
    ],
)
async def test_redirects_are_not_followed(proxy: Proxy, config: Config, path: str, what: str, detail: str) -> None:
    moved = f"location = {path} {{{{ return 301 http://127.0.0.1:9/moved; }}}}"
    async with proxy(configuration=wrong((ROOT, moved + ROOT))) as url:
        said = await doctor(config, url)
    assert said.bad() == {what: "FAILED"}
    assert detail in said.found[what][1]


async def test_a_server_that_lets_everybody_in(start: Start, tmp_path: Path) -> None:
    port = (await start(allow_anonymous=True)).client.port
    async with (
        nginx(tmp_path / "nginx", [port], configuration=RIGHT) as url,
        aiohttp.ClientSession(proxy=url) as session,
    ):
        [found] = [finding async for finding in check_auth(Client(session, f"http://{ELSEWHERE}", None))]
    assert (found.level, found.detail) == ("warning", "none: everyone who gets here may read everything")


async def test_a_server_that_is_restarted_meanwhile(proxy: Proxy, guarded: Chat, config: Config) -> None:
    async with proxy(configuration=RIGHT) as url:
        asking = asyncio.create_task(doctor(config, url))
        await until(lambda: bool(guarded.client.app and guarded.client.app[LIMITS].streams.held))
        guarded.turns.draining = True
        said = await asking
    assert said.bad()["stream"] == "FAILED"
    assert "restarted in the middle" in said.found["stream"][1]


@pytest.mark.parametrize("heartbeat", [15, 40, 45, 60, 120, 600])
@pytest.mark.parametrize("lost", [0, 1])
def test_heartbeats_are_counted(heartbeat: float, lost: int) -> None:
    """The last one may be due just as the silence ends, and all come a little late."""
    silence = min(HEARTBEATS * heartbeat, MAX_SILENCE)
    heard = Heard(asked={"heartbeat": heartbeat, "silence": silence}, last=silence, cut=False)
    sent = range(1, math.ceil(silence / heartbeat))
    heard.pings = [n * heartbeat + 0.001 for n in sent][: len(sent) - lost]
    assert look_at_silence(heard).level == ("FAILED" if lost and sent else "ok")


def test_heartbeats_that_are_held_back() -> None:
    asked = {"heartbeat": 15, "silence": 52.5}
    heard = Heard(asked=asked, last=52.5, cut=False, pings=[15, 44.9, 45])
    assert look_at_silence(heard).level == "FAILED"
    assert "3 of 3 heartbeats came, at most 29.9 s apart" in look_at_silence(heard).detail


START = {"type": "start"}
TEXT = {"type": "text", "text": "One"}
DONE = {"type": "done", "message_id": "msg-1", "status": "stopped"}
KEPT = {"id": "msg-1", "content": "One", "status": "stopped"}


async def check_of(*events: dict[str, str]) -> TurnCheck:
    """Return the check of a turn that has come to an end, of which these events were seen, the last one later."""
    async with aiohttp.ClientSession() as session:
        check = TurnCheck(Client(session, "http://127.0.0.1:9", None), "sess-1", 7)
    for number, event in enumerate(events, 1):
        check.seen.see(Frame(0.0, f"turn-1.{number}", event))
    check.broken_at = len(events) - 1
    return check


async def test_what_is_said_of_an_answer_that_was_taken_up_again() -> None:
    check, cut = await check_of(START, TEXT, DONE), await check_of(START, TEXT)
    assert "after event 2 of 3 and taken up again: no gap" in str(check.look_at_resumption(KEPT))
    for kept in (KEPT | {"id": "msg-2"}, KEPT | {"content": "Two"}):
        assert "is not what the history says" in str(check.look_at_resumption(kept))
    assert "ended without `done`" in str(cut.look_at_resumption(KEPT))


async def test_what_is_said_of_an_answer_that_was_stopped() -> None:
    check, complete = await check_of(START, TEXT, DONE), {"status": "complete"}
    assert check.look_at_stop(KEPT).level == "warning"
    check.stopped = True
    assert check.look_at_stop(KEPT).level == "ok"
    assert check.look_at_stop(KEPT | complete).level == "FAILED"
    check.seen.last = DONE | complete
    assert check.look_at_stop(KEPT).level == "FAILED"


async def test_a_model_that_says_nothing(chat: Chat, model: ModelServer) -> None:
    model.default = says()
    async with aiohttp.ClientSession() as session:
        found = [finding async for finding in check_turn(Client(session, str(chat.client.make_url("/")), None))]
    assert [(finding.what, finding.level) for finding in found[1:]] == [("resume", "warning"), ("stop", "warning")]


async def test_a_model_that_fails(proxy: Proxy, guarded: Chat, model: ModelServer, config: Config) -> None:
    model.default = fails(401)
    async with proxy(configuration=RIGHT) as url:
        said = await doctor(config, url)
    assert (said.status, said.bad()) == (1, {"model": "FAILED"}), said.output
    assert await sessions(guarded) == 0


async def test_nobody_is_there(config: Config, tmp_path: Path) -> None:
    said = await run_doctor("http://127.0.0.1:9")
    assert (said.status, said.bad()) == (1, {"reachable": "FAILED"})
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with nginx(tmp_path / "nginx", [port], configuration=RIGHT) as url:
        said = await doctor(config, url)
    assert said.bad() == {"reachable": "FAILED"}
    assert "is answered with 502, not as chatd does" in said.found["reachable"][1]


async def test_an_interrupted_one_leaves_nothing(proxy: Proxy, guarded: Chat, model: ModelServer) -> None:
    model.default = silent
    async with proxy(configuration=RIGHT) as url:
        process = await asyncio.create_subprocess_exec(
            *("env", "--default-signal=INT", sys.executable, "-m", "chatd", "doctor", url),
            env=os.environ | {"CHATD_JWT_SECRET": SECRET},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        await until(lambda: bool(model.requests), 60)
        assert await sessions(guarded) == 1
        process.send_signal(signal.SIGINT)
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert output.decode().endswith("stopping it\nchatd: interrupted\n")
    assert await sessions(guarded) == 0


def certify(directory: Path, days: float) -> Path:
    """Return the file of a new certificate for 127.0.0.1 and ELSEWHERE, its own authority; its key lies beside it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chatd")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName(ELSEWHERE)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (directory / "tls.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (directory / "tls.crt").write_bytes(certificate.public_bytes(pem))
    return directory / "tls.crt"


@pytest.mark.parametrize(
    ("days", "http2", "found"),
    [
        (90.5, "http2 on;", {}),
        (90.5, "", {"HTTP": "warning"}),
        (5.5, "http2 on;", {"TLS": "warning"}),
        (-1, "http2 on;", {"reachable": "FAILED"}),
    ],
    ids=["good", "http-1.1", "nearly-over", "over"],
)
async def test_tls(proxy: Proxy, tmp_path: Path, days: float, http2: str, found: dict[str, str]) -> None:
    certificate = certify(tmp_path, days)
    lines = f"ssl_certificate {certificate}; ssl_certificate_key {tmp_path / 'tls.key'}; {http2}"
    configuration = wrong(("listen 127.0.0.1:{port};", f"listen 127.0.0.1:{{port}} ssl; {lines}"))
    async with proxy(configuration=configuration) as url:
        https = url.replace("http:", "https:")
        said = await run_doctor(https, CHATD_JWT_SECRET=SECRET, SSL_CERT_FILE=str(certificate))
        assert said.bad() == found, said.output
        if days > 0:
            assert f"good for {days - 0.5:.0f} days" in said.found["TLS"][1]
            said = await run_doctor(https, CHATD_JWT_SECRET=SECRET)
        assert said.bad() == {"reachable": "FAILED"}
        assert "the certificate is refused" in said.found["reachable"][1]


async def test_tls_through_a_forward_proxy(proxy: Proxy, tmp_path: Path) -> None:
    certificate = certify(tmp_path, 90.5)
    lines = f"ssl_certificate {certificate}; ssl_certificate_key {tmp_path / 'tls.key'};"
    configuration = wrong(("listen 127.0.0.1:{port};", f"listen 127.0.0.1:{{port}} ssl; {lines}"))
    async with proxy(configuration=configuration) as url, tunnel(int(url.rpartition(":")[2])) as forward:
        names = {"https_proxy": forward, "no_proxy": "", "SSL_CERT_FILE": str(certificate)}
        said = await run_doctor(f"https://{ELSEWHERE}", **names)
    assert said.bad() == {"auth": "FAILED"}, said.output  # it has no token
    assert "HTTPS_PROXY" in said.found["TLS"][1]


@asynccontextmanager
async def tunnel(port: int) -> AsyncIterator[str]:
    """Yield the URL of a forward proxy that connects everybody to this port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()
