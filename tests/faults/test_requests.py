"""Requests that are made twice, that make no sense, or that never end."""

import asyncio
import json
import random
import time
from pathlib import Path

import aiohttp
from yarl import URL

from tests.chat_client import CHARACTER, Chat
from tests.faults.clients import Caller, Transcript, callers, everyone, names
from tests.faults.conftest import Note, Scale, Supervise
from tests.faults.counting_model import CountingModel, Question
from tests.faults.invariants import check
from tests.faults.resources import check_resources
from tests.faults.test_clients import answering, transcripts_of, warm_up
from tests.javascript import NODE
from tests.sse_client import events

HEAD = "Host: localhost\r\nContent-Type: application/json\r\n"
# Cursors as they stand in a query, percent-encoded; {turn} is the turn that runs, {foreign} one of another session.
BAD_CURSORS = [
    "nonsense",
    "turn-00000000000000000000000000000000.1",
    "{foreign}.1",
    *("{turn}", "{turn}.", "{turn}.0", "{turn}.-1", "{turn}.1.1", "{turn}.1e1", "{turn}.0x1", "{turn}.%D9%A1"),
    *("{turn}.999999", "{turn}.999999999999999999", "{turn}." + "9" * 40, "%20{turn}.1"),
    *("{turn}.1%00", "%00", "%FF", "%ED%A0%80", "{turn}.1%0A", "%27%3B--", "x" * 4000),
]
TOO_LONG = "9" * 9000
EVENT_SOURCE = Path(__file__).with_name("event_source.mjs")


async def exchange(port: int, request: str, size: int = -1) -> bytes:
    """Send bytes and return what comes back: all until the server closes, or `size` bytes at most."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.encode())
        return await asyncio.wait_for(reader.read(size), 10)
    finally:
        writer.transport.abort()


def post(message: object, headers: str = "", version: str = "1.1") -> str:
    """Return a POST to the stream as it goes over the wire."""
    body = json.dumps({"message": str(message), "character_id": CHARACTER})
    head = f"POST /agent/chat/stream HTTP/{version}\r\n{HEAD}{headers}Content-Length: {len(body)}\r\n"
    return f"{head}\r\n{body}"


async def test_racing_with_one_key(
    supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, note: Note
) -> None:
    """C6: racing POSTs with one Idempotency-Key, to both routes: one turn, the same answer for all"""
    supervisor = await supervise()
    question = Question("once", count=50)
    async with callers(supervisor.url, names("c", scale.racing_posts)) as users:
        await everyone([user.ask(question, key="the-key", stream=n % 2 == 0) for n, user in enumerate(users)])
        await everyone([users[0].ask(question, key='"the-key"', stream=stream) for stream in (True, False)])
        transcripts = transcripts_of(users)
        note(await check(dsn, transcripts, model, [supervisor]))
    assert len({transcript.turn_id for transcript in transcripts}) == 1
    streams = [transcript.received for transcript in transcripts if transcript.received]
    answers = [transcript.answer for transcript in transcripts if transcript.answer]
    assert streams.count(streams[0]) == len(streams)
    assert answers.count(answers[0]) == len(answers)


async def test_asking_again_after_a_crash(
    supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, rng: random.Random, note: Note
) -> None:
    """C6: kill -9 in the moment of a POST, which is made again with its key: its message is there once"""
    supervisor = await supervise()
    async with callers(supervisor.url, ["c"]) as (user,):
        for _ in range(scale.doubtful_posts):
            question = user.question(count=20)
            asking = asyncio.create_task(user.ask(question, key=question.canary, stream=rng.random() < 0.5))
            await asyncio.sleep(rng.uniform(0, 0.02))
            await supervisor.kill()
            await supervisor.wait_ready()
            await asking
        note(await check(dsn, user.transcripts, model, [supervisor]))


async def test_one_key_for_two_bodies(supervise: Supervise, model: CountingModel, dsn: str) -> None:
    """C7: the same Idempotency-Key with another body is refused, and nothing is written"""
    supervisor = await supervise()
    async with callers(supervisor.url, ["c"]) as (user,), aiohttp.ClientSession(supervisor.url) as session:
        asked = await user.ask(user.question(count=10), key="k")
        headers = {"Idempotency-Key": "k"}
        for path in ("/agent/chat", "/agent/chat/stream"):
            other = {"message": "another", "character_id": CHARACTER}
            problem = await Chat(session).call("POST", path, 422, json=other, headers=headers)
            assert problem["code"] == "idempotency_mismatch"
        found = await Chat(session).call("GET", "/agent/sessions")
        assert [one["session_id"] for one in found["sessions"]] == [asked.session_id]
        assert found["sessions"][0]["message_count"] == 2
        await check(dsn, user.transcripts, model, [supervisor])


async def read_with(user: Caller, turn: Transcript, cursor: str) -> Transcript:
    """Read a turn from a cursor that can't be honoured, to its end."""
    url = URL(f"{user.url}/agent/chat/stream/{turn.session_id}?last_event_id={cursor}", encoded=True)
    read = Transcript(turn.question, turn.session_id, turn.turn_id, turn.user_message_id)
    async with user.session.get(url) as response:
        assert response.status == 200, f"{cursor}: {response.status} {await response.text()}"
        async for event in events(response):
            read.add(event)
    assert read.received[0].kind == "reset", f"{cursor}: {read.received[0]}"
    assert read.resets == 1
    assert read.ended
    return read


async def test_bad_cursors(supervise: Supervise, model: CountingModel, dsn: str, note: Note) -> None:
    """C9: cursors that are unknown, foreign, of the future or nonsense: the text so far, then the rest of it"""
    supervisor = await supervise()
    async with callers(supervisor.url, ["one", "other"]) as (user, other):
        foreign = await other.ask(other.question(count=10))
        async with answering(user, 100, 20) as turn:
            cursors = [cursor.format(turn=turn.turn_id, foreign=foreign.turn_id) for cursor in BAD_CURSORS]
            read = await asyncio.gather(*(read_with(user, turn, cursor) for cursor in cursors))
        read += await asyncio.gather(*(read_with(user, turn, cursor) for cursor in cursors))
        note(f"{len(cursors)} cursors, running and ended")
        note(await check(dsn, [*transcripts_of([user, other]), *read], model, [supervisor]))
        await check_refused(user, turn)


async def check_refused(user: Caller, turn: Transcript) -> None:
    """A cursor that is too long to be read is refused, and so is a session that is none."""
    path = f"/agent/chat/stream/{turn.session_id}"
    port = int(user.url.rpartition(":")[2])
    for value in (f"{TOO_LONG}", "a\0b"):
        answer = await exchange(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {value}\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ") or answer.startswith(b"HTTP/1.0 400 "), answer[:100]
    async with user.session.get(f"{user.url}{path}", params={"last_event_id": TOO_LONG}) as response:
        assert response.status in {400, 414}
    for nobody in ("sess-" + "0" * 32, "nonsense", "%00"):
        async with user.session.get(URL(f"{user.url}/agent/chat/stream/{nobody}", encoded=True)) as response:
            assert response.status == 404


async def test_event_source_stops_at_the_end(supervise: Supervise, model: CountingModel, dsn: str, note: Note) -> None:
    """C10: Node's EventSource reads a turn, comes back exactly at its end, gets 204 and stops"""
    supervisor = await supervise()
    async with callers(supervisor.url, ["c"]) as (user,), answering(user, 50, 20) as turn:
        url = f"{supervisor.url}/agent/chat/stream/{turn.session_id}"
        command = (NODE, "--experimental-eventsource", "--no-warnings", str(EVENT_SOURCE), url)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(process.communicate(), 30)
    seen = json.loads(output)
    assert seen["text"] == turn.question.answer
    assert seen["last"] == turn.received[-1].id
    assert seen["opened"] == 1
    assert seen["closed"]
    note(await check(dsn, user.transcripts, model, [supervisor]))


async def test_never_finishing_a_request(
    supervise: Supervise, model: CountingModel, dsn: str, scale: Scale, note: Note
) -> None:
    """C11: requests that never end, in their head or in their body, hold up nobody"""
    supervisor = await supervise()
    warm = await warm_up(supervisor, dsn)
    unfinished = ["POST /agent/chat HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", post("never", "X: y\r\n")[:-5]]
    held = []
    for n in range(scale.slow_loris):
        _, writer = await asyncio.open_connection("127.0.0.1", supervisor.port)
        writer.write(unfinished[n % 2].encode())
        held.append(writer)
    async with callers(supervisor.url, names("c", 10)) as users:
        begun = time.monotonic()
        await everyone([user.ask(user.question(count=50)) for user in users])
        seconds = time.monotonic() - begun
    for writer in held:
        writer.close()
    note(f"{len(held)} held, ten turns in {seconds:.1f} s")
    note(await check(dsn, transcripts_of(users), model, [supervisor]))
    note(await check_resources(supervisor.pid, dsn, warm))
    assert seconds < 10


async def test_huge_bodies_and_pipelining(supervise: Supervise) -> None:
    """C11: a body that is too large is refused, however it comes; pipelined requests are answered in order"""
    supervisor = await supervise()
    head = f"POST /agent/chat HTTP/1.1\r\n{HEAD}Connection: close\r\n"
    chunk = f"{1 << 16:x}\r\n{'x' * (1 << 16)}\r\n"
    for body in (
        f"Content-Length: {300 << 10}\r\n\r\n{'x' * (300 << 10)}",
        f"Content-Length: {1 << 40}\r\n\r\n{'x' * (300 << 10)}",
        f"Transfer-Encoding: chunked\r\n\r\n{chunk * 5}0\r\n\r\n",
    ):
        assert (await exchange(supervisor.port, head + body, 100)).startswith(b"HTTP/1.1 413 ")
    look = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    piped = f"{look}\r\n" * 100 + post(Question("piped", count=5)) + f"{look}Connection: close\r\n\r\n"
    answers = await exchange(supervisor.port, piped)
    assert answers.count(b"HTTP/1.1 200 OK") == 102
    assert answers.index(b'"done"') < answers.rindex(b"HTTP/1.1 200 OK")
    assert not supervisor.tracebacks


async def test_other_methods_and_versions(supervise: Supervise, note: Note) -> None:
    """C12: HTTP/1.0 gets an unchunked stream that ends with the connection; HEAD and OPTIONS what is documented"""
    supervisor = await supervise()
    answer = await exchange(supervisor.port, post(Question("old", count=20), version="1.0"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 OK" in head
    assert b"chunked" not in head.lower()
    assert body.startswith(b"retry: 1000\nid: turn-")
    assert b'"type":"done"' in body.split(b"\n\n")[-2]
    stream = f"/agent/chat/stream/sess-{'0' * 32}"
    for line, status in (("HEAD /healthz", 200), (f"HEAD {stream}", 405), ("OPTIONS /agent/chat", 405)):
        answer = await exchange(supervisor.port, f"{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert int(answer.split()[1]) == status, line
    note("HEAD of a stream and OPTIONS: 405")
    assert not supervisor.tracebacks
