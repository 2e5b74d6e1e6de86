"""Who may read the metrics: this host's own programs, and admins; and what the documentation says of them."""

import asyncio
import re
import socket
from pathlib import Path

import aiohttp
import pytest

from tests.chat_client import Chat, until
from tests.conftest import Start
from tests.faults.nginx import find_nginx, free_ports, wait_for_port
from tests.metric_names import documented
from tests.model_server import ModelServer
from tests.server_process import ServerProcess
from tests.test_metrics import read, scrape
from tests.token_provider import SECRET, bearer, token

PROXIED = {"X-Forwarded-For": "203.0.113.7"}
FOREIGN = {"Host": "rebound.example"}
WHO = {
    "nobody": {},
    "an owner": bearer(token()),
    "an admin": bearer(token("root", role="admin")),
    "garbage": bearer("x.y.z"),
}


@pytest.mark.parametrize("way", [PROXIED, FOREIGN, {"Via": "1.1 proxy"}, {"Forwarded": "for=203.0.113.7"}])
@pytest.mark.parametrize(("who", "status"), [("nobody", 401), ("garbage", 401), ("an owner", 403), ("an admin", 200)])
async def test_others_need_an_admins_token(start: Start, way: dict[str, str], who: str, status: int) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET)
    assert ("chatd_build_info" in await read(chat, way | WHO[who], status)) == (status == 200)


async def test_this_hosts_programs_need_none(start: Start) -> None:
    chat = await start(auth="jwt", jwt_secret=SECRET)
    for headers in WHO.values():
        await read(chat, headers)
    await chat.call("GET", "/agent/sessions", 401)


async def test_another_address_is_not_this_host(start: Start) -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    chat = await start(auth="jwt", jwt_secret=SECRET)
    runner = chat.client.server.runner
    site = aiohttp.web.TCPSite(runner, address, 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    async with aiohttp.ClientSession(f"http://{address}:{port}") as session:
        await read(Chat(session), status=401)


def own_address() -> str | None:
    """Return an address of this machine that is no loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(sock.getsockname()[0])
    return None if address.startswith(("127.", "0.")) else address


async def test_without_tokens(start: Start) -> None:
    chat = await start()
    await read(chat, PROXIED, 403)
    await read(chat, FOREIGN, 403)
    open_to_all = await start(allow_anonymous=True)
    await read(open_to_all, PROXIED)


# The documentation


DOCS = (Path(__file__).parent.parent / "docs/metrics.md").read_text()
MAIN = "daemon off;\nmaster_process off;\nevents {}\n"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def test_every_metric_is_in_the_documentation_and_no_other() -> None:
    table = DOCS.partition("| metric |")[2].partition("\n\n")[0]
    names = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert names == documented()


async def test_the_nginx_of_the_documentation(dsn: str, model: ModelServer, tmp_path: Path) -> None:
    """Over a Unix socket, with tokens: the port that it opens is this host's, and shows the metrics alone.

    The other one, for a Prometheus elsewhere, is open to one address.
    """
    (port, other), path = free_ports(2), tmp_path / "chatd.sock"
    own, elsewhere, *_ = re.findall(r"```nginx\n(.*?)```", DOCS, re.DOTALL)
    elsewhere = elsewhere.replace("192.0.2.1:9464", f"127.0.0.1:{other}").replace("192.0.2.10", "127.0.0.2")
    listen = "    listen 127.0.0.1:9464;\n"
    assert listen in own
    site = own.replace(":9464", f":{port}") + own.replace(listen, elsewhere)
    site = site.replace("/run/chatd/http.sock", str(path))
    temporary = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = tmp_path / "nginx.conf"
    file.write_text(
        f"daemon off;\nmaster_process off;\npid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{temporary}{site}}}\n"
    )
    server = ServerProcess(
        DATABASE_URL=dsn,
        CHATD_DATA_DIR=str(tmp_path),
        ANTHROPIC_BASE_URL=model.url,
        CHATD_SOCKET=str(path),
        CHATD_AUTH="jwt",
        CHATD_JWT_SECRET=SECRET,
    )
    starting = asyncio.create_task(server.start())
    await until(path.exists, 60)
    nginx = await asyncio.create_subprocess_exec(str(find_nginx()), "-e", f"{tmp_path}/error.log", "-c", str(file))
    await wait_for_port(port)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        assert (await scrape(Chat(session)))("chatd_build_info") == 1
        async with session.get("/agent/sessions") as response:
            assert (response.status, response.headers["Server"].partition("/")[0]) == (404, "nginx")
    for address, status in (("127.0.0.1", 403), ("127.0.0.2", 200)):
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        url = f"http://127.0.0.1:{other}/metrics"
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
            assert response.status == status
    nginx.terminate()
    server.process.terminate()
    assert await nginx.wait() == await server.process.wait() == 0
    starting.cancel()
