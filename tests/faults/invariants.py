"""What must hold once the faults have stopped: nothing acknowledged is lost, nothing is there twice."""

import asyncio
import itertools
import json
import math
import re
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from chatd.seam import common_prefix
from tests.faults.clients import Transcript
from tests.faults.counting_model import CountingModel, Question
from tests.faults.supervisor import Supervisor
from tests.sse_client import Event, text_of

SECRET = "sk-canary-key"
ANSWER = re.compile(r":t\d{4}")  # a piece of an answer
END_TIMEOUT = 30.0  # seconds after the faults in which every turn ends
MAX_ATTEMPTS = 3
TURNS = """
    SELECT turn.*, question.content AS question, answer.content AS answer, answer.token_usage,
        ARRAY(SELECT seq FROM agent_events WHERE turn_id = turn.id ORDER BY seq) AS seqs,
        ARRAY(SELECT data FROM agent_events WHERE turn_id = turn.id ORDER BY seq) AS events
    FROM agent_turns AS turn
    LEFT JOIN agent_messages AS question ON question.id = turn.user_message_id
    LEFT JOIN agent_messages AS answer ON answer.id = turn.message_id
"""
ORPHANS = "SELECT count(*) FROM agent_events WHERE turn_id NOT IN (SELECT id FROM agent_turns)"
SESSIONS = """
    SELECT id, status, message_count,
        (SELECT count(*) FROM agent_messages WHERE session_id = session.id) AS messages,
        (SELECT count(*) FROM agent_messages WHERE session_id = session.id AND role = 'user') AS questions,
        (SELECT count(*) FROM agent_messages WHERE session_id = session.id AND role = 'assistant') AS answers,
        (SELECT count(*) FROM agent_turns WHERE session_id = session.id) AS turns
    FROM agent_sessions AS session
"""


@dataclass(frozen=True)
class Summary:
    """What was checked, in numbers."""

    turns: int
    messages: int
    events: int
    in_doubt: int  # posts of which their callers never learned whether they were taken
    restarts: int
    longest_pause: float  # seconds between two events that a reader saw
    first_events: list[float]  # seconds from each restart to the first event of any turn that had begun before
    last_turn: float  # seconds until the last of those turns went on, at worst

    def __str__(self) -> str:
        parts = [f"{self.turns} turns", f"{self.messages} messages", f"{self.events} events"]
        parts += [f"{self.in_doubt} in doubt"] if self.in_doubt else []
        parts += [f"longest pause {self.longest_pause:.2f} s"]
        if self.restarts:
            parts.append(f"{self.restarts} restarts")
        if self.first_events:
            times = sorted(self.first_events)
            parts.append(f"start to first event: median {times[len(times) // 2]:.2f} s, worst {times[-1]:.2f} s")
            parts.append(f"to the last turn's at worst {self.last_turn:.2f} s")
        return ", ".join(parts)


async def check(
    dsn: str,
    transcripts: Sequence[Transcript],
    model: CountingModel,
    supervisors: Sequence[Supervisor] = (),
    *,
    complete: bool = True,
    stopped: Container[str] = (),
) -> Summary:
    """Check every turn of the database and every transcript; raises AssertionError with the first that is wrong.

    `complete`: no fault was one for which a turn may end without its whole answer. `stopped`: the canaries of the turns
    that somebody has asked to be stopped.
    """
    conn = await asyncpg.connect(dsn)
    try:
        await wait_for_ends(conn)
        turns, sessions = await conn.fetch(TURNS), await conn.fetch(SESSIONS)
        assert not await conn.fetchval(ORPHANS), "events without a turn"
    finally:
        await conn.close()
    for turn in turns:
        check_turn(turn, model, complete=complete, stopped=stopped)
    for session in sessions:
        check_session(session)
    check_questions(turns, transcripts)
    by_id = {turn["id"]: turn for turn in turns}
    for transcript in transcripts:
        if transcript.acknowledged:
            check_transcript(transcript, by_id[transcript.turn_id])
    assert not model.strange, model.strange
    for supervisor in supervisors:
        assert not supervisor.tracebacks, supervisor.tracebacks
        told = [line for line in supervisor.log if SECRET in line or ANSWER.search(line)]
        assert not told, f"the log tells what it must not: {told}"
    return summarize(turns, sessions, transcripts, [at for one in supervisors for at in one.starts[1:]])


async def wait_for_ends(conn: Any) -> None:
    """Wait until no turn runs; raises AssertionError where one takes too long."""
    limit = time.monotonic() + END_TIMEOUT
    while running := await conn.fetch("SELECT id, attempt, epoch FROM agent_turns WHERE state = 'running'"):
        assert time.monotonic() < limit, f"still running: {running}"
        await asyncio.sleep(0.1)


def check_turn(turn: Any, model: CountingModel, *, complete: bool, stopped: Container[str]) -> None:
    where = f"{turn['id']} ({turn['question']}, {turn['state']}, epoch {turn['epoch']})"
    assert turn["question"] is not None, f"{where}: its user message is gone"
    assert turn["seqs"] == list(range(1, len(turn["seqs"]) + 1)), f"{where}: events {turn['seqs']}"
    assert turn["last_seq"] == len(turn["seqs"]), where
    text = text_of([Event(json.loads(data), "") for data in turn["events"]])
    assert text == (turn["answer"] or ""), f"{where}: the events' text is not the message's"
    if question := Question.read(turn["question"]):
        check_answer(turn, question, text, model, where)
        ends = {"done", "stopped"} if question.canary in stopped else {"done"}
        assert not complete or turn["state"] in ends, f"{where}: {turn['outcome']}"


def check_answer(turn: Any, question: Question, text: str, model: CountingModel, where: str) -> None:
    """Check the text, and what was asked of the model for it."""
    if turn["state"] == "done":
        assert text == question.answer, f"{where}: {difference(text, question.answer)}"
    assert question.answer.startswith(text), f"{where}: {difference(text, question.answer)}"
    asked, refused = model.asked[question.canary], model.refused[question.canary]
    assert turn["attempt"] <= MAX_ATTEMPTS, where
    assert asked - refused <= turn["attempt"] + turn["epoch"] - 1, f"{where}: {asked} requests, {refused} refused"
    if turn["state"] == "done" and asked == 1:
        assert json.loads(turn["token_usage"])["output_tokens"] == question.count, where


def difference(text: str, expected: str) -> str:
    """Describe where two texts part."""
    at = common_prefix(text, expected)
    near = slice(max(0, at - 40), at + 40)
    return f"at {at} of {len(expected)}: {text[near]!r} and not {expected[near]!r}"


def check_session(session: Any) -> None:
    where = str(dict(session))
    assert session["status"] in {"idle", "error"}, where
    assert session["message_count"] == session["messages"], where
    assert session["turns"] == session["questions"], where
    assert session["answers"] <= session["questions"], where


def check_questions(turns: Sequence[Any], transcripts: Sequence[Transcript]) -> None:
    """Every acknowledged question is there once; one in doubt at most once; nobody else's is there."""
    stored = [turn["question"] for turn in turns if Question.read(turn["question"])]
    assert len(stored) == len(set(stored)), "a question is there twice"
    acknowledged = {str(transcript.question) for transcript in transcripts if transcript.acknowledged}
    assert acknowledged <= set(stored), acknowledged - set(stored)
    known = {str(transcript.question) for transcript in transcripts}
    assert set(stored) <= known, set(stored) - known


def check_transcript(transcript: Transcript, turn: Any) -> None:
    """What a client saw is what is stored, and nobody else's."""
    where = f"{turn['id']} as {transcript.question.canary} saw it"
    assert turn["question"] == str(transcript.question), where
    assert transcript.session_id == turn["session_id"], where
    for event in transcript.received:
        if event.kind != "reset":
            assert json.loads(turn["events"][event.seq - 1]) == event.data, f"{where}: event {event.seq}"
    canaries = {word.partition(":")[0] for word in transcript.text.split() if ":" in word}
    assert canaries <= {transcript.question.canary}, where
    if transcript.ended:
        assert transcript.text == (turn["answer"] or ""), where


def summarize(
    turns: Sequence[Any], sessions: Sequence[Any], transcripts: Sequence[Transcript], restarts: Sequence[float]
) -> Summary:
    lives = itertools.pairwise([*sorted(restarts), math.inf])
    waits = [found for life in lives if (found := waits_in(*life, transcripts))]
    return Summary(
        turns=len(turns),
        messages=sum(session["messages"] for session in sessions),
        events=sum(len(transcript.received) for transcript in transcripts),
        in_doubt=sum(transcript.in_doubt for transcript in transcripts),
        restarts=len(restarts),
        longest_pause=max((transcript.longest_pause for transcript in transcripts), default=0.0),
        first_events=[min(found) for found in waits],
        last_turn=max((max(found) for found in waits), default=0.0),
    )


def waits_in(start: float, end: float, transcripts: Sequence[Transcript]) -> list[float]:
    """Return how long after its start a process gave the next event of each turn that had begun before."""
    begun = [t for t in transcripts if t.arrivals and t.arrivals[0] < start < t.arrivals[-1]]
    later = [next(at for at in transcript.arrivals if at > start) for transcript in begun]
    return [at - start for at in later if at < end]
