"""Examples for the API's description: one small conversation, as it is asked for and answered, and what goes wrong."""

import json
from typing import Any

from chatd.errors import (
    CharacterForbidden,
    ChatdError,
    Forbidden,
    IdempotencyMismatch,
    InvalidRequest,
    NotFound,
    NoToken,
    RateLimited,
    TooLarge,
    TurnInProgress,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UpstreamFailed,
    problem,
)
from chatd.failures import TEXTS
from chatd.limits import TEXTS as LIMITS

JsonObject = dict[str, Any]

SESSION = "sess-01a2081a338f7b3e88434085815fb582"
TURN = "turn-01a2081a338f7ecdaf3babaf319c1887"
QUESTION = "msg-01a2081a338f7d4385d106aab86a48b7"
ANSWER = "msg-01a2081a338f7e9582388b7ef0da321a"
REQUEST = "49ee0e299381c69a556a5cda435109dc"
BEGAN, ENDED = "2026-11-23T11:11:03.402118Z", "2026-11-23T11:11:04.921739Z"

ASKED = {"message": "What is the capital of France?", "session_id": None, "character_id": 1}
GOING_ON = {"message": "And of Spain?", "session_id": SESSION, "character_id": 1}
TEXT = "The capital of France is Paris."
USAGE = {"input_tokens": 14, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 8}
USER_MESSAGE = {
    "id": QUESTION,
    "role": "user",
    "content": ASKED["message"],
    "content_blocks": [{"type": "text", "text": ASKED["message"]}],
    "created_at": BEGAN,
    "token_usage": None,
    "status": "complete",
    "model": None,
    "stop_reason": None,
}
MESSAGE = {
    "id": ANSWER,
    "role": "assistant",
    "content": TEXT,
    "content_blocks": [{"type": "text", "text": TEXT}],
    "created_at": ENDED,
    "token_usage": USAGE,
    "status": "complete",
    "model": "claude-sonnet-5-5",
    "stop_reason": "end_turn",
}
CONVERSATION = {
    "session_id": SESSION,
    "character_id": 1,
    "title": "Capitals",
    "status": "idle",
    "message_count": 2,
    "created_at": BEGAN,
    "updated_at": ENDED,
}
ENTRY = {
    "seq": 1,
    "at": BEGAN,
    "owner": "alice",
    "owner_id": "own-c20f03a90e8618a452f624a1dbeafba6",
    "action": "session.create",
    "object": SESSION,
    "request_id": REQUEST,
    "address": "127.0.0.1",
    "outcome": "ok",
}

EVENTS: dict[str, JsonObject] = {
    "start": {
        "type": "start",
        "session_id": SESSION,
        "turn_id": TURN,
        "message_id": ANSWER,
        "user_message_id": QUESTION,
    },
    "text": {"type": "text", "text": "The capital of France"},
    "retry": {"type": "retry", "attempt": 2, "max_attempts": 3, "delay": 2.0, "reason": "upstream_overloaded"},
    "reset": {"type": "reset", "text": "The capital of France is"},
    "done": {
        "type": "done",
        "message_id": ANSWER,
        "status": "complete",
        "stop_reason": "end_turn",
        "token_usage": USAGE,
        "length": len(TEXT),
    },
    "error": {
        "type": "error",
        "error": TEXTS["upstream_overloaded"],
        "code": "upstream_overloaded",
        "message_id": None,
    },
}

TEST_EVENTS: dict[str, JsonObject] = {
    "request": {"type": "request", "http_version": "1.1", "heartbeat": 15.0, "silence": 52.5},
    "number": {"type": "number", "number": 1, "at": BEGAN},
    "end": {"type": "end"},
}

# By operation: what is sent.
REQUESTS: dict[str, dict[str, JsonObject]] = {
    "post_chat": {"a new session": ASKED, "the next message": GOING_ON},
    "post_stream": {"a new session": ASKED, "the next message": GOING_ON},
    "post_ticket": {"a session's": {"session_id": SESSION}},
    "post_session": {
        "with all there is": {"character_id": 1, "title": "Capitals", "system_prompt": "Answer in one sentence."},
        "the least": {"character_id": 1},
    },
    "patch_session": {"a title": {"title": "Capitals of Europe"}, "none": {"title": None}},
}

# By operation and status: what comes.
STREAM = {
    name: {"id": f"{TURN}.{number}", "data": json.dumps(data)} for number, (name, data) in enumerate(EVENTS.items(), 1)
}
RESPONSES: dict[tuple[str, int], dict[str, Any]] = {
    ("post_chat", 200): {
        "an answer": {
            "session_id": SESSION,
            "turn_id": TURN,
            "message_id": ANSWER,
            "status": "idle",
            "message": MESSAGE,
        }
    },
    ("post_chat", 202): {
        "to be attached to": {"session_id": SESSION, "turn_id": TURN, "message_id": ANSWER, "status": "thinking"}
    },
    ("post_stream", 200): STREAM,
    ("get_stream", 200): STREAM,
    ("get_stream_test", 200): {name: {"data": json.dumps(data)} for name, data in TEST_EVENTS.items()},
    ("get_metrics", 200): {"two of them": "chatd_turns_running 3.0\nchatd_readers 5.0\n"},
    ("get_history", 200): {
        "a page": {
            "session_id": SESSION,
            "status": "idle",
            "message_count": 2,
            "messages": [USER_MESSAGE, MESSAGE],
            "before": None,
        }
    },
    ("post_stop", 200): {
        "stopped": {"session_id": SESSION, "stopped": True, "message_id": ANSWER},
        "nothing ran": {"session_id": SESSION, "stopped": False, "message_id": None},
    },
    ("post_ticket", 201): {
        "a ticket": {"ticket": "Zt3c1n0pB4q8Yk6wJx2uVhGfRsMd7aLeOiQzTb5CvXE", "session_id": SESSION, "expires_in": 300}
    },
    ("post_session", 201): {"a session": CONVERSATION | {"message_count": 1, "updated_at": BEGAN}},
    ("get_sessions", 200): {"the last page": {"sessions": [CONVERSATION], "next": None}},
    ("get_session", 200): {"a session": CONVERSATION},
    ("patch_session", 200): {"a session": CONVERSATION | {"title": "Capitals of Europe"}},
    ("get_me", 200): {
        "a token": {"owner": "alice", "characters": [1], "admin": False, "expires_at": ENDED},
        "no tokens": {"owner": "anonymous", "characters": None, "admin": False, "expires_at": None},
    },
    ("get_audit", 200): {"the last page": {"entries": [ENTRY], "next": None}},
    ("get_healthz", 200): {"alive": {"status": "ok"}},
    ("get_readyz", 200): {"ready": {"status": "ok", "checks": {"database": "ok", "draining": "no"}}},
    ("get_readyz", 503): {
        "draining": {"status": "unavailable", "checks": {"database": "ok", "draining": "yes"}},
        "no database": {"status": "unavailable", "checks": {"database": "unavailable", "draining": "no"}},
    },
    ("get_document", 200): {
        "its head": {"openapi": "3.1.0", "info": {"title": "chatd", "version": "0.1.0"}, "paths": {}}
    },
}

FAILURES: tuple[ChatdError, ...] = (
    InvalidRequest("message: Must not be empty.", errors={"message": ["Must not be empty."]}),
    Unauthorized(),
    NoToken(),
    Forbidden(),
    CharacterForbidden(),
    NotFound(),
    TurnInProgress(turn_id=TURN),
    TooLarge(),
    UnsupportedMediaType(),
    IdempotencyMismatch(),
    RateLimited(LIMITS["messages"]),
    UpstreamFailed(
        TEXTS["upstream_overloaded"],
        session_id=SESSION,
        turn_id=TURN,
        message_id=None,
        session_status="error",
        reason="upstream_overloaded",
    ),
    Unavailable(),
)


def problem_document(error: ChatdError) -> JsonObject:
    """Return what a client gets of an error."""
    body = problem(error).body
    assert isinstance(body, bytes)
    return dict(json.loads(body))


def problems_of(kind: type[ChatdError]) -> dict[str, JsonObject]:
    """Return examples of an error's problem documents, its subclasses' among them."""
    return {type(error).__name__: problem_document(error) for error in FAILURES if isinstance(error, kind)}
