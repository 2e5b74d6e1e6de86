"""A turn from its POST to its place in the history."""

import asyncio

from tests.chat_client import CHARACTER, Chat
from tests.conftest import Start
from tests.model_server import USAGE, ModelServer, says
from tests.sse_client import text_of

TOKEN_USAGE = USAGE | {"output_tokens": 7}  # what is said last counts


async def test_a_post_returns_the_saved_answer(chat: Chat, model: ModelServer) -> None:
    answer = await chat.post("  hi  ")

    message = answer["message"]
    assert answer["status"] == "idle"
    assert message["id"] == answer["message_id"]
    assert message["content"] == "Hello, world."
    assert message["content_blocks"] == [{"type": "text", "text": "Hello, world."}]
    assert (message["role"], message["status"], message["stop_reason"]) == ("assistant", "complete", "end_turn")
    assert message["model"] == "test-model"
    assert message["token_usage"] == TOKEN_USAGE
    history = await chat.history(answer["session_id"])
    assert history["message_count"] == 2
    assert [m["content"] for m in history["messages"]] == ["  hi  ", "Hello, world."]
    assert history["messages"][1] == message
    assert history["messages"][0]["token_usage"] is None


async def test_a_stream_tells_start_text_and_done(chat: Chat) -> None:
    received = await chat.stream("hi")

    start, *texts, done = received
    assert start.data.keys() == {"type", "session_id", "turn_id", "message_id", "user_message_id"}
    assert {event.kind for event in texts} == {"text"}
    assert text_of(received) == "Hello, world."
    assert [event.id for event in received] == [f"{start.data['turn_id']}.{n}" for n in range(1, len(received) + 1)]
    assert done.data == {
        "type": "done",
        "message_id": start.data["message_id"],
        "status": "complete",
        "stop_reason": "end_turn",
        "token_usage": TOKEN_USAGE,
        "length": 13,
    }
    history = await chat.history(start.data["session_id"])
    assert [m["id"] for m in history["messages"]] == [start.data["user_message_id"], start.data["message_id"]]


async def test_the_frames_are_as_documented_byte_by_byte(chat: Chat) -> None:
    async with chat.streaming("hi") as response:
        body = await response.read()

    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Accel-Buffering"] == "no"
    first, *others, end = body.split(b"\n\n")
    retry, event_id, data = first.split(b"\n")
    assert retry == b"retry: 1000"
    assert event_id.startswith(b"id: turn-")
    assert data.startswith(b'data: {"type":"start","session_id":"sess-')
    assert all(frame.split(b"\n")[1].startswith(b"data: {") and len(frame.split(b"\n")) == 2 for frame in others)
    assert end == b""


async def test_a_session_goes_on_with_its_history(chat: Chat, model: ModelServer) -> None:
    first = await chat.post("one")
    await chat.post("two", first["session_id"])

    expected = [("user", "one"), ("assistant", "Hello, world."), ("user", "two")]
    assert model.requests[1].messages == expected
    assert (await chat.history(first["session_id"]))["message_count"] == 4


async def test_the_request_asks_for_caching_and_sends_no_sampling_parameters(chat: Chat, model: ModelServer) -> None:
    await chat.post("one")

    body = model.requests[0].body
    assert body.keys() == {"model", "max_tokens", "messages", "stream"}
    assert body["messages"][-1]["content"][-1]["cache_control"] == {"type": "ephemeral"}
    assert model.requests[0].headers["authorization"] == "Bearer sk-canary-key"


async def test_system_prompts_of_the_settings_and_of_a_session(start: Start, model: ModelServer) -> None:
    chat = await start(system_prompt="Be brief.")
    session = await chat.session(system_prompt="Be kind.")
    await chat.post("one")
    await chat.post("two", session["session_id"])

    assert [request.body["system"][0]["text"] for request in model.requests] == ["Be brief.", "Be kind."]
    history = await chat.history(session["session_id"])
    assert session["message_count"] == 1
    assert history["message_count"] == 3
    assert [m["role"] for m in history["messages"]] == ["system", "user", "assistant"]


async def test_respond_async_returns_at_once_with_a_place_to_attach(chat: Chat, model: ModelServer) -> None:
    model.default = says("slow", " answer", delay=0.05)
    accepted = await chat.post("hi", status=202, headers={"Prefer": "respond-async, wait=10"})

    assert accepted.keys() == {"session_id", "turn_id", "message_id", "status"}
    assert accepted["status"] == "thinking"
    received = await chat.attach(accepted["session_id"])
    assert text_of(received) == "slow answer"
    assert received[0].seq == 1


async def test_one_of_fifty_posts_at_once_begins_a_turn(chat: Chat, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.05)
    session = (await chat.session())["session_id"]

    async def post() -> int:
        body = chat.body("hi", session)
        async with chat.client.post("/agent/chat", json=body) as response:
            answer = await response.json()
            if response.status == 409:
                assert answer["code"] == "turn_in_progress"
                assert answer["turn_id"].startswith("turn-")
            return int(response.status)

    statuses = await asyncio.gather(*(post() for _ in range(50)))
    assert sorted(statuses) == [200] + [409] * 49
    assert (await chat.history(session))["message_count"] == 2
    assert len(model.requests) == 1


async def test_a_client_that_leaves_ends_nothing(chat: Chat, model: ModelServer) -> None:
    model.default = says(*"abcdefghij", delay=0.02)
    async with chat.streaming("hi") as response:
        await response.content.readany()
        response.close()
    (run,) = chat.turns.running.values()
    await asyncio.wait([run.task])

    history = await chat.history(run.turn.session_id)
    assert history["messages"][1]["content"] == "abcdefghij"
    assert history["messages"][1]["status"] == "complete"


async def test_another_character_may_not_use_the_session(chat: Chat) -> None:
    session = (await chat.session())["session_id"]
    body = chat.body("hi", session, character_id=CHARACTER + 1)

    problem = await chat.call("POST", "/agent/chat", 403, json=body)
    assert problem["code"] == "character_forbidden"
    assert (await chat.history(session))["message_count"] == 0


async def test_an_unknown_session_is_not_found_and_makes_nothing(chat: Chat, model: ModelServer) -> None:
    for session in ("sess-" + "0" * 32, "nonsense", "", "sess-'; --"):
        problem = await chat.post("hi", session, status=404)
        assert problem["code"] == "not_found"
    assert (await chat.call("GET", "/agent/sessions"))["sessions"] == []
    assert model.requests == []
