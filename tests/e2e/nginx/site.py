"""The site file that is deployed, in a real nginx: ports, paths and, where a test says so, times are its own."""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from tests.chat_client import until
from tests.faults.nginx import command, find_nginx, free_ports, running, wait_for_port

FILE = Path(__file__).parents[3] / "deploy" / "nginx.conf"
PROGRAMS = {"debian": Path("/usr/sbin/nginx"), "current": find_nginx()}
AROUND = """
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections {connections}; }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    gzip on;
    gzip_types *;
    gzip_min_length 1;
    include {directory}/site.conf;
}}
"""  # with as much compression as somebody may have turned on for all sites
USER = "user root;"  # as whom root's nginx works: it is to reach sockets in root's directories
NOTHING: Mapping[str, str] = MappingProxyType({})


class Site:
    """An nginx that runs with the file; `plain_url` is the one that redirects where `url` is TLS."""

    def __init__(self, directory: Path, url: str, plain_url: str, process: asyncio.subprocess.Process) -> None:
        self.directory, self.url, self.plain_url, self.process = directory, url, plain_url, process

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def read(self, name: str) -> str:
        return (self.directory / name).read_text()

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    async def reload(self) -> None:
        """Have a new worker serve new requests; the old one ends when its own have."""
        old = set(self.workers())
        self.process.send_signal(signal.SIGHUP)
        await until(lambda: len(set(self.workers()) - old) == 1, 30)


@asynccontextmanager
async def deployed(
    directory: Path,
    upstream: str,
    program: Path,
    changes: Mapping[str, str] = NOTHING,
    *,
    tls: bool = False,
    connections: int = 1024,
) -> AsyncIterator[Site]:
    """Run the file in front of `upstream` (`unix:PATH`, `HOST:PORT`), with texts in it changed."""
    ports = free_ports(2)
    write_site(directory, upstream, ports, changes, tls)
    file = write_around(directory, connections)
    async with running(program, file) as process:
        await wait_for_port(ports[0])
        scheme = "https" if tls else "http"
        yield Site(directory, f"{scheme}://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", process)


def write_site(directory: Path, upstream: str, ports: Sequence[int], changes: Mapping[str, str], tls: bool) -> None:
    """Write the file; nginx listens on the first port, and with TLS redirects from the second one."""
    directory.mkdir()
    if tls:
        make_certificate(directory)
    text = with_tls(FILE.read_text()) if tls else FILE.read_text()
    own = {
        "listen 80;": f"listen 127.0.0.1:{ports[tls]};",
        "listen [::]:80;": "",
        "unix:/run/chatd/http.sock": upstream,
        "/var/log/nginx/": f"{directory}/",
    }
    of_tls = {
        "listen 443 ": f"listen 127.0.0.1:{ports[0]} ",
        "listen [::]:443 ssl http2;": "",
        "/etc/letsencrypt/live/chat.example.com/": f"{directory}/",
    }
    (directory / "site.conf").write_text(change(text, own | (of_tls if tls else {}) | dict(changes)))


def write_around(directory: Path, connections: int = 1024) -> Path:
    """Write the configuration that includes the file."""
    file = directory / "nginx.conf"
    user = USER if os.geteuid() == 0 else ""
    file.write_text(AROUND.format(directory=directory, user=user, connections=connections))
    return file


def change(text: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, f"{FILE.name} has no {old!r}"
        text = text.replace(old, new)
    return text


def with_tls(text: str) -> str:
    """Do with the file what its comment on TLS says."""
    text = change(text, {"    listen 80;\n    listen [::]:80;\n    server_name": "    server_name"})
    text = re.sub(r"^    #(listen|ssl_|add_header)", r"    \1", text, flags=re.MULTILINE)
    first, _, second = text.partition("\n#server {")
    return f"{first}\nserver {{{second.replace(chr(10) + '#', chr(10))}"


def make_certificate(directory: Path) -> None:
    names = ("-keyout", str(directory / "privkey.pem"), "-out", str(directory / "fullchain.pem"))
    options = ("-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost")
    subprocess.run(["openssl", "req", *options, *names], check=True, capture_output=True)


def check(program: Path, file: Path) -> str:
    """Return what nginx complains about; raises AssertionError where it would not start."""
    done = subprocess.run([*command(program, file), "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return "".join(line for line in done.stderr.splitlines(keepends=True) if not re.search("is ok|is successful", line))
