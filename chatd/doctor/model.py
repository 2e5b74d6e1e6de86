"""The model, asked for one token in the way in which turns ask it."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from chatd.config import Config
from chatd.doctor.findings import Finding, Findings, failed, warning
from chatd.failures import TEXTS, UpstreamError
from chatd.llm import ANTHROPIC, Llm
from chatd.local_model import LocalModel, find_model
from chatd.logs import describe, root_of
from chatd.parsing import place_of
from chatd.prompt import Prompt
from chatd.reply import Reply

QUESTION = Prompt("", (("user", "Say hello."),))
PASSING = {"upstream_overloaded", "upstream_rate_limited", "upstream_unavailable"}


async def check_model(config: Config) -> Findings:
    where = "the local one" if config.is_local_model else f"{config.model} at {place_of(config.base_url or ANTHROPIC)}"
    began = time.monotonic()
    async with opened(replace(config, max_tokens=1)) as llm:
        try:
            async with aclosing(llm.stream(QUESTION, Reply())) as pieces:
                async for _ in pieces:
                    pass
        except UpstreamError as error:
            yield explain(error, config, where)
        else:
            yield Finding("model", f"{where} answers in {time.monotonic() - began:.1f} s")


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Llm]:
    """Yield the door to the model; the local one is started beside that of a running server, with a log of its own."""
    with TemporaryDirectory() as directory:
        local = LocalModel(find_model(config.local_model), Path(directory) / "log") if config.is_local_model else None
        llm = Llm(config, local)
        try:
            yield llm
        finally:
            await llm.close()
            if local is not None:
                await local.stop()


def explain(error: UpstreamError, config: Config, where: str) -> Finding:
    """Say what the failure of a request means for whoever sets chatd up."""
    if config.is_local_model:
        return failed(
            "model", f"{where} does not start: {reason(error)}", "see whether CHATD_LOCAL_MODEL is a GGUF file"
        )
    if error.status in {401, 403}:
        return failed("model", f"{where} refuses the key ({error.status})", "set ANTHROPIC_API_KEY to one it knows")
    if error.status == 404:
        advice = "set CHATD_MODEL to a model of this server, or ANTHROPIC_BASE_URL to where the Messages API is"
        return failed("model", f"{where} is not known there (404)", advice)
    if error.code == "upstream_unreachable":
        advice = "see whether ANTHROPIC_BASE_URL is right, and whether this host gets there"
        return failed("model", f"{where} can't be reached: {reason(error)}", advice)
    status = f" ({error.status})" if error.status else ""
    if error.code in PASSING:
        return warning("model", f"{where}: {TEXTS[error.code]}{status}", "it may pass: see the server's own state")
    return failed("model", f"{where}: {TEXTS[error.code]}{status}", "see what the model's server has logged")


def reason(error: UpstreamError) -> str:
    return describe(root_of(error))
