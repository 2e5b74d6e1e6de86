"""The only door to the model: one attempt is an async iterator of pieces of text, its failures classified.

The SDK signs, sends and names the errors; the stream's bytes are decoded here, at a quarter of the cost of its events.
It takes a second to import, so it is imported in a thread, while the rest starts.
"""

import asyncio
import gc
import importlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, cast

from chatd.config import Config
from chatd.crash import crash_point
from chatd.errors import ConfigError
from chatd.failures import UpstreamError, check, from_status
from chatd.local_model import MAX_TOKENS, PROMPT_TOKENS, LocalModel
from chatd.log_events import log_event
from chatd.logs import describe, root_of
from chatd.parsing import is_local, place_of
from chatd.prompt import Prompt
from chatd.reply import Reply
from chatd.seam import OverlapSeam, Seam
from chatd.sse import Decoder

logger = logging.getLogger(__name__)

ANTHROPIC = "https://api.anthropic.com"
CONNECT_TIMEOUT = 5.0
CONNECTIONS = {"max_connections": 0, "max_keepalive_connections": 100}  # 0: no limit but CHATD_MAX_TURNS (None: 100)
PLAIN = {"Accept-Encoding": "identity"}
END_TIMEOUT = 0.1  # for the end of the body after the last event


class Llm:
    """A server that speaks the Anthropic Messages API."""

    def __init__(self, config: Config, local: LocalModel | None) -> None:
        self.config, self.local = config, local
        self.max_tokens = min(config.max_tokens, MAX_TOKENS) if local else config.max_tokens
        self.budget = min(config.context_tokens, PROMPT_TOKENS) if local else config.context_tokens
        self.refuses_prefill = False
        self.url: str | None = None
        self.client: Any = None
        self.sdk: Any = None
        self.importing: asyncio.Future[Any] | None = None

    async def warm_up(self) -> None:
        """Get ready for the first turn; what fails now is tried again then."""
        try:
            await self._client()
        except Exception as error:  # noqa: BLE001 - whatever it is, the first turn will tell
            logger.warning("the model is not ready: %s", describe(error))

    async def load(self) -> None:
        """Import the SDK, once, in a thread; callers wait for it together."""
        if self.importing is None:
            self.importing = asyncio.ensure_future(asyncio.to_thread(import_sdk))
        try:
            self.sdk = await asyncio.shield(self.importing)
        except Exception:  # out of files or memory, say: the next turn tries it again
            self.importing = None
            raise

    async def close(self) -> None:
        if self.importing is not None:
            await asyncio.wait([self.importing])
        if self.client is not None:
            await self.client.close()

    async def stream(self, prompt: Prompt, reply: Reply) -> AsyncGenerator[str, None]:
        """Make one attempt, which goes on from the reply's text where it has some, and yield text as it comes.

        "" tells of content that is not text. Ends when the answer is complete; raises UpstreamError otherwise.
        A prefill that the server refuses is asked for again in the other way, at once.
        """
        ways = self.ways(await self.fit(prompt), reply.text)
        for parameters, seam in ways:
            try:
                async with aclosing(self._attempt(reply, parameters, seam)) as pieces:
                    async for piece in pieces:
                        self.refuses_prefill |= isinstance(seam, OverlapSeam)  # nothing else was wrong then
                        yield piece
            except UpstreamError as error:
                if error.status != 400 or (parameters, seam) == ways[-1]:
                    raise
            else:
                return

    def ways(self, prompt: Prompt, shown: str) -> list[tuple[dict[str, Any], Seam | None]]:
        """Return the requests that may be made, the later ones should the one before be refused."""
        if not shown:
            return [(prompt.parameters(), None)]
        if not shown.strip():
            return [prompt.prefilled(shown)]
        prefilled, asked = prompt.prefilled(shown), prompt.asked_to_go_on(shown)
        return [asked] if self.refuses_prefill else [prefilled, asked]

    async def _attempt(self, reply: Reply, parameters: dict[str, Any], seam: Seam | None) -> AsyncGenerator[str, None]:
        reply.begin(seam)
        decoder = Decoder()
        try:
            async with await self._send(parameters) as response:
                crash_point("after_send")
                reply.request_id = response.headers.get("request-id")
                chunks = body_of(response)
                async for chunk in chunks:
                    text, failure = read(decoder, reply, chunk)
                    if text is not None:
                        yield text
                    if failure is not None:
                        raise failure
                    if reply.complete:
                        await finish_reading(chunks)
                        return
        except UpstreamError:
            raise
        except Exception as error:
            raise self.classify(error) from error
        raise UpstreamError("upstream_cut")

    async def _send(self, parameters: dict[str, Any]) -> Any:
        client = await self._client()
        return client.messages.with_streaming_response.create(
            model=self.config.model, max_tokens=self.max_tokens, stream=True, extra_headers=PLAIN, **parameters
        )

    async def _client(self) -> Any:
        """Return the SDK's client for where the server is now."""
        await self.load()
        url = await self.local.address() if self.local else self.config.base_url or ANTHROPIC
        if self.client is None or url != self.url:
            if self.client is not None:  # of a local model that has ended
                await self.client.close()
            self.url = url
            self.client = self.sdk.AsyncAnthropic(
                api_key=self.local.key if self.local else self.config.api_key or "none",
                base_url=url,
                http_client=self.sdk.DefaultAioHttpClient(
                    trust_env=not is_local(url),  # no proxy for this host
                    limits=type(self.sdk.DEFAULT_CONNECTION_LIMITS)(**CONNECTIONS),
                ),
                max_retries=0,
                timeout=self.sdk.Timeout(None, connect=CONNECT_TIMEOUT),  # the turn has clocks of its own
                open_telemetry=False,
            )
        return self.client

    async def fit(self, prompt: Prompt) -> Prompt:
        """Shorten the prompt for the local model, by its own count of tokens: its window is small."""
        while self.local and await self._count_tokens(prompt) > self.budget:
            shorter = prompt.shorter()
            if shorter == prompt:
                raise UpstreamError("upstream_refused", retried=False)
            prompt = shorter
        return prompt

    async def _count_tokens(self, prompt: Prompt) -> int:
        try:
            client = await self._client()
            count = await client.messages.count_tokens(model=self.config.model, **prompt.parameters())
        except Exception as error:
            raise self.classify(error) from error
        return int(count.input_tokens)

    def classify(self, error: Exception) -> UpstreamError:
        """Return what a failure of the SDK, of its transport or of the stream's format means; raises others."""
        if self.sdk is None:
            raise error
        if isinstance(error, self.sdk.APIStatusError):
            return from_status(error)
        if isinstance(error, self.sdk.APIConnectionError | OSError | TimeoutError | ConfigError):
            where, why = place_of(self.url or ""), describe(root_of(error))
            away = "the model's server at %(server)s can't be reached: %(reason)s"
            log_event(logger, logging.WARNING, "model.unreachable", away, server=where, reason=why)
            return UpstreamError("upstream_unreachable")
        if type(error).__module__.partition(".")[0] not in {"httpx2", "httpcore2", "aiohttp", "json"}:
            logger.warning("the model's stream failed unexpectedly", exc_info=error)
        return UpstreamError("upstream_cut")


def import_sdk() -> Any:
    """Import the SDK without having its hundred thousand objects gone through for garbage, now or ever again.

    That would take a tenth of the time now, and stop the event loop for a tenth of a second each time later.
    """
    gc.disable()
    try:
        return importlib.import_module("anthropic")
    finally:
        gc.freeze()
        gc.enable()


def body_of(response: Any) -> AsyncIterator[bytes]:
    """Return the body's chunks, past what would decompress and cut them: three generators for each chunk to pass."""
    if "content-encoding" in response.headers:  # though it was asked for none
        return cast(AsyncIterator[bytes], response.iter_bytes())
    return aiter(response.http_response.stream)


async def finish_reading(chunks: AsyncIterator[bytes]) -> None:
    """Read to the end of the body, if it comes at once: only then can the connection be used again."""
    with suppress(Exception):
        async with asyncio.timeout(END_TIMEOUT):
            async for _ in chunks:
                pass


def read(decoder: Decoder, reply: Reply, chunk: bytes) -> tuple[str | None, Exception | None]:
    """Take a chunk of the stream in: the text to show ("" for other content), and what failed behind it."""
    pieces: list[str] = []
    try:
        for event in decoder.feed(chunk):
            check(event)
            if (piece := reply.add(event)) is not None:
                pieces.append(piece)
            if reply.stop_reason == "refusal":
                raise UpstreamError("upstream_refusal", retried=False)
            if reply.complete:
                break
    except Exception as error:  # noqa: BLE001 - whatever is wrong with an event, the text before it counts
        failure = error if isinstance(error, UpstreamError) else UpstreamError("upstream_cut")
        return ("".join(pieces) if pieces else None), failure
    return ("".join(pieces) if pieces else None), None
