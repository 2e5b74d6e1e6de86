"""The harness itself: a fault suite that can't see a fault proves nothing."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from chatd.prompt import Prompt
from tests.chat_client import until
from tests.faults.clients import Transcript
from tests.faults.counting_model import CountingModel, Question, read_request
from tests.faults.proxy import Proxy
from tests.faults.supervisor import Supervisor
from tests.sse_client import Event

ECHO = "hello" * 1000

STUB = """
import os, signal, socket, sys
assert os.environ["LISTEN_PID"] == str(os.getpid())
listening = socket.socket(fileno=3)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(notify.send(b"STOPPING=1") * 0))
notify.send(b"READY=1\\nSTATUS=up")
print("Traceback (most recent call last):", file=sys.stderr, flush=True)
while True:
    client, _ = listening.accept()
    client.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    client.close()
"""


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """Yield a proxy in front of a server that sends back what comes."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(4096):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname())
    await proxy.listen()
    yield proxy
    await proxy.stop()
    server.close()


async def call(proxy: Proxy, size: int = len(ECHO)) -> tuple[str, float]:
    """Return what comes back through a proxy, and after how many seconds."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(ECHO[:size].encode())
        writer.write_eof()
        received = await asyncio.wait_for(reader.read(-1), 5)
    finally:
        writer.transport.abort()
    return received.decode(), time.monotonic() - begun


async def test_a_proxy_forwards_slices_and_delays(proxy: Proxy) -> None:
    proxy.slice = 7
    assert (await call(proxy))[0] == ECHO
    proxy.latency = 0.5
    received, seconds = await call(proxy)
    assert received == ECHO
    assert 1 <= seconds < 2.5


async def test_a_proxy_limits_the_bandwidth(proxy: Proxy) -> None:
    proxy.bandwidth = 5000
    received, seconds = await call(proxy, 2500)
    assert received == ECHO[:2500]
    assert 0.4 <= seconds < 1.5


async def test_a_proxy_ends_connections_after_a_limit(proxy: Proxy) -> None:
    proxy.slice, proxy.limit = 100, 1000
    assert (await call(proxy))[0] == ECHO[:1000]
    proxy.limit_resets = True
    with pytest.raises(ConnectionResetError):
        await call(proxy)


async def test_a_proxy_freezes_resets_closes_and_refuses(proxy: Proxy) -> None:
    for end, outcome in ((proxy.reset_all, ConnectionResetError), (proxy.close_all, None)):
        proxy.frozen = False
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await until(lambda: len(proxy.links) == 1)
        proxy.frozen = True
        waiting = asyncio.create_task(reader.read(-1))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        end()
        (ended,) = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(ended, outcome) if outcome else ended == b""
        writer.close()
        await until(lambda: not proxy.links)
    proxy.frozen = False
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await call(proxy)
    await proxy.listen()
    assert (await call(proxy))[0] == ECHO


async def test_a_supervisor_passes_its_socket_and_starts_again_what_ends(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, command=(sys.executable, "-c", STUB))
    await supervisor.start()
    await supervisor.wait_ready()
    assert supervisor.heard("READY=1")
    assert supervisor.heard("STATUS=up")
    await supervisor.kill()
    await supervisor.wait_ready()  # the connection waits for the next process
    assert len(supervisor.starts) == 2
    assert supervisor.exits == [-9]
    await until(lambda: len(supervisor.tracebacks) == 2)
    supervisor.freeze()
    await supervisor.stop()
    assert supervisor.heard("STOPPING=1", since=supervisor.starts[-1])
    assert supervisor.exits == [-9, 0]


@pytest.mark.parametrize("shown", ["", "c1.1:t0000 ", "c1.1:t0000 c1.1:t00", "c1.1:t0000 c1.1:t0001"])
def test_the_model_goes_on_where_the_text_breaks_off(shown: str) -> None:
    question = Question("c1.1", count=3)
    prompt = Prompt("", (("user", "count 9 every 1 ms as c1.0 wide 0"), ("assistant", "old"), ("user", str(question))))
    fresh, prefilled, asked = prompt.parameters(), prompt.prefilled(shown), prompt.asked_to_go_on(shown)
    for parameters, joined in ((fresh, ""), (prefilled[0], shown.rstrip()), (asked[0], shown)):
        messages = [(message["role"], message["content"][0]["text"]) for message in parameters["messages"]]
        request = read_request(messages)
        assert request is not None
        assert (request.question, request.given) == (question, joined)
        assert request.is_prefill == (parameters is prefilled[0] and bool(shown))


def test_a_transcript_takes_no_gap_no_repeat_and_no_foreign_event() -> None:
    transcript = Transcript(Question("c1.1"))
    ids = {"session_id": "s", "turn_id": "turn-1", "message_id": "m", "user_message_id": "u"}
    transcript.add(Event({"type": "start", **ids}, "turn-1.1"))
    transcript.add(Event({"type": "text", "text": "a"}, "turn-1.2"))
    for wrong in ("turn-1.2", "turn-1.4", "turn-2.3"):
        with pytest.raises(AssertionError):
            transcript.add(Event({"type": "text", "text": "b"}, wrong))
    transcript.add(Event({"type": "reset", "text": "abc"}, "turn-1.5"))
    assert transcript.text == "abc"


async def test_the_model_tells_of_a_text_that_it_did_not_write(model: CountingModel) -> None:
    reader, writer = await asyncio.open_connection(*model.server.sockets[0].getsockname())
    text = '"content":[{"text":"%s"}]}'
    body = f'{{"messages":[{{"role":"user",{text},{{"role":"assistant",{text}]}}' % (Question("c1.1"), "c1.1:t0001")
    writer.write(f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    assert b" 422 " in await reader.readline()
    await reader.read()
    writer.close()
    assert len(model.strange) == 1
