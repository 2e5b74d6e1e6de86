"""What the site file that is deployed lets through, and how; behind it is a server that writes down what it gets."""

import asyncio
import re
from pathlib import Path

import aiohttp
import pytest

from chatd.config import Config
from chatd.requests import MAX_BODY
from tests.chat_client import until
from tests.e2e.nginx.conftest import Deploy
from tests.e2e.nginx.peer import Peer, refused, visiting
from tests.e2e.nginx.site import FILE, NOTHING, PROGRAMS, Site, check, write_around, write_site
from tests.faults.nginx import free_ports

CANARY = "ticket-canary"
HOSTS_OWN = ["/metrics", "/readyz"]
SPELLINGS = ["{}", "/{}", "{}?x", "/./{}", "/x/..{}", "/%2e{}", "/%2f{}", "{}#x", "http://chat.example.com{}"]


def seconds(directive: str, text: str) -> list[float]:
    return [float(value) for value in re.findall(rf"^\s*{directive} (\d+)s;", text, re.MULTILINE)]


@pytest.mark.parametrize("tls", [False, True])
def test_nginx_has_no_complaint(program: Path, tmp_path: Path, tls: bool) -> None:
    """But for the way to ask for HTTP/2 that both take."""
    directory = tmp_path / "nginx"
    write_site(directory, "unix:/nowhere", free_ports(2), NOTHING, tls)
    said = check(program, write_around(directory))
    if tls and program == PROGRAMS["current"]:
        assert re.fullmatch(r'nginx: \[warn\] the "listen ... http2" directive is deprecated.*\n', said)
    else:
        assert said == ""


def test_its_figures_are_those_of_chatd(tmp_path: Path) -> None:
    text, default = FILE.read_text(), Config(data_dir=tmp_path)
    general, waiting = seconds("proxy_read_timeout", text)
    assert general >= 5 * default.heartbeat
    assert waiting >= default.turn_timeout + 30
    assert seconds("send_timeout", text)[0] > default.write_timeout
    assert f"client_max_body_size {MAX_BODY >> 10}k;" in text
    assert f"client_body_buffer_size {MAX_BODY >> 10}k;" in text


async def test_what_is_passed_on(deploy: Deploy, peer: Peer) -> None:
    """The client's address as nginx sees it, whatever the client says; ids that chatd would take; nothing is kept."""
    own = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher", "Authorization": "Bearer x"}
    own |= {
        "Last-Event-ID": "turn-1.2",
        "Idempotency-Key": '"k"',
        "Prefer": "respond-async",
        "Origin": "https://a.example",
    }
    async with deploy() as site, visiting(site) as session:
        for given in ("mine-1", "not mine!", "x" * 129, ""):
            asked = own | {"X-Request-ID": given, "Host": "Chat.example.com"}
            async with session.get("/agent/me?a=%26", headers=asked) as response:
                assert response.status == 200
    assert [request.raw_path for request in peer.requests] == ["/agent/me?a=%26"] * 4
    ids = [request.headers["X-Request-ID"] for request in peer.requests]
    assert ids[0] == "mine-1"
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids[1:])
    for headers in (request.headers for request in peer.requests):
        assert headers.getall("X-Forwarded-For") == ["127.0.0.1"]
        assert headers.getall("X-Forwarded-Proto") == ["http"]
        assert headers.getall("Host") == ["chat.example.com"]
        assert headers["Connection"] == "close"
        assert all(headers[name] == own[name] for name in own if not name.startswith("X-"))
    assert all(request.version == aiohttp.HttpVersion11 for request in peer.requests)
    assert len(peer.connections) == 4


@pytest.mark.parametrize("path", HOSTS_OWN)
async def test_what_is_for_the_host_alone(deploy: Deploy, peer: Peer, path: str) -> None:
    async with deploy() as site, visiting(site) as session:
        async with session.get(path) as response:
            await refused(response, 404, "not_found")
        for spelling in SPELLINGS:
            assert (await raw(site, spelling.format(path))).startswith(b"HTTP/1.1 404"), spelling
        assert peer.requests == []
        async with session.get("/healthz") as response:
            assert response.status == 200


async def raw(site: Site, target: str) -> bytes:
    """Ask for a target as it is spelled and return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: chat.example.com\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("path", ["/agent/chat", "/agent/chat/stream", "/agent/chat/stop/sess-1", "/agent"])
async def test_each_path_reaches_chatd(deploy: Deploy, peer: Peer, path: str) -> None:
    async with deploy() as site, visiting(site) as session:
        await (await session.post(path, json={}, allow_redirects=False)).read()
    assert [(request.method, request.path) for request in peer.requests] == [("POST", path)]


async def test_a_post_is_never_sent_twice(deploy: Deploy, peer: Peer, tmp_path: Path) -> None:
    """Though there are two to send it to: a GET goes to the other one when the first one dies."""
    two = {"max_fails=0;": f"max_fails=0; server unix:{tmp_path}/second.sock max_fails=0;"}
    async with deploy(two) as site, visiting(site) as session:
        for method, times in (("POST", 1), ("PATCH", 1), ("GET", 2)):
            peer.requests.clear()
            async with session.request(method, "/agent/chat/dies") as response:
                await refused(response, 502, "unavailable")
            assert len(peer.requests) == times


async def test_chatd_is_not_there(deploy: Deploy, tmp_path: Path) -> None:
    """Without a socket that is held: a problem that says to come back, which an EventSource does not read."""
    (tmp_path / "http.sock").unlink()
    async with deploy() as site, visiting(site) as session, session.get("/agent/sessions") as response:
        await refused(response, 502, "unavailable")


async def test_chatd_does_not_answer(deploy: Deploy, peer: Peer) -> None:
    """The times are a fiftieth of what they are."""
    times = {"proxy_read_timeout 75s": "proxy_read_timeout 1500ms"}
    async with deploy(times) as site, visiting(site) as session, session.post("/agent/session/waits") as response:
        await refused(response, 504, "unavailable")
    assert len(peer.requests) == 1


async def test_what_people_write_is_in_no_file(deploy: Deploy, peer: Peer) -> None:
    """Queries neither, where tickets are: not in the access log and not, when chatd dies, in the error log."""
    path = f"/agent/chat/stream/sess-1/dies?ticket={CANARY}"
    async with deploy() as site, visiting(site) as session:
        async with session.get(path, headers={"X-Request-ID": "of-mine"}) as response:
            assert response.status == 502
        async with session.post("/agent/chat/dies", data=CANARY * 1000) as response:
            assert response.status == 502
        await until(lambda: "POST" in site.read("chatd.log"))
        files = [file for file in site.directory.rglob("*") if file.is_file()]
        assert not [file for file in files if CANARY in file.read_text()]
        line = site.read("chatd.log").splitlines()[0]
    assert re.fullmatch(r'127.0.0.1 \[\S+\] "GET /agent/chat/stream/sess-1/dies" 502 \d+ [\d.]+ 502 of-mine', line)


async def test_tls(deploy: Deploy, peer: Peer) -> None:
    """The comments taken off: HTTP/2, and a redirect from where there is no TLS."""
    async with deploy(tls=True) as site, visiting(site) as session:
        curl = await asyncio.create_subprocess_exec(
            *("curl", "-sk", "--http2", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", f"{site.url}/"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert (await curl.communicate())[0] == b"2 200"
        async with session.get("/") as response:
            assert response.status == 200
        async with session.get(
            f"{site.plain_url}/x?y=1", headers={"Host": "evil.example"}, allow_redirects=False
        ) as moved:
            assert (moved.status, moved.headers["Location"]) == (301, "https://chat.example.com/x?y=1")
    assert {request.headers["X-Forwarded-Proto"] for request in peer.requests} == {"https"}
    assert len(peer.requests) == 2
