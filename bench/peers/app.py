"""The peer: what one writes today with FastAPI, sse-starlette, Anthropic's SDK and asyncpg, by their documentation.

The same endpoints as chatd's, with the history in PostgreSQL; the answer is kept once it is complete.
"""

import json
import os
import uuid
from contextlib import asynccontextmanager

import asyncpg
from anthropic import AsyncAnthropic
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel
from sse_starlette import EventSourceResponse

SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    id uuid PRIMARY KEY,
    character_id bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS messages (
    id bigserial PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    role text NOT NULL,
    content text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS messages_session ON messages (session_id, id);
"""


class ChatRequest(BaseModel):
    message: str
    character_id: int
    session_id: uuid.UUID | None = None


class Message(BaseModel):
    id: int
    role: str
    content: str
    created_at: str


class History(BaseModel):
    messages: list[Message]


class ChatResponse(BaseModel):
    session_id: uuid.UUID
    message: str


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=10, max_size=10)
    app.state.client = AsyncAnthropic()
    await app.state.pool.execute(SCHEMA)
    yield
    await app.state.pool.close()


app = FastAPI(lifespan=lifespan)


async def begin(pool: asyncpg.Pool, body: ChatRequest) -> tuple[uuid.UUID, list[dict[str, str]]]:
    """Keep the question and return the session and its messages."""
    session_id = body.session_id or uuid.uuid4()
    async with pool.acquire() as conn, conn.transaction():
        if body.session_id is None:
            await conn.execute("INSERT INTO sessions (id, character_id) VALUES ($1, $2)", session_id, body.character_id)
        elif not await conn.fetchval("SELECT 1 FROM sessions WHERE id = $1", session_id):
            raise HTTPException(404, "no such session")
        await conn.execute(
            "INSERT INTO messages (session_id, role, content) VALUES ($1, 'user', $2)", session_id, body.message
        )
        rows = await conn.fetch("SELECT role, content FROM messages WHERE session_id = $1 ORDER BY id", session_id)
    return session_id, [{"role": row["role"], "content": row["content"]} for row in rows]


async def keep(pool: asyncpg.Pool, session_id: uuid.UUID, text: str) -> None:
    await pool.execute(
        "INSERT INTO messages (session_id, role, content) VALUES ($1, 'assistant', $2)", session_id, text
    )


@app.post("/agent/chat")
async def chat(body: ChatRequest, request: Request) -> ChatResponse:
    state = request.app.state
    session_id, messages = await begin(state.pool, body)
    answer = await state.client.messages.create(model="bench", max_tokens=100, messages=messages)
    text = "".join(block.text for block in answer.content if block.type == "text")
    await keep(state.pool, session_id, text)
    return ChatResponse(session_id=session_id, message=text)


@app.post("/agent/chat/stream")
async def stream(body: ChatRequest, request: Request) -> EventSourceResponse:
    state = request.app.state
    session_id, messages = await begin(state.pool, body)

    async def events():
        parts: list[str] = []
        yield {"data": json.dumps({"type": "start", "session_id": str(session_id)})}
        async with state.client.messages.stream(model="bench", max_tokens=100, messages=messages) as answer:
            async for text in answer.text_stream:
                parts.append(text)
                yield {"data": json.dumps({"type": "text", "text": text})}
        await keep(state.pool, session_id, "".join(parts))
        yield {"data": json.dumps({"type": "done"})}

    return EventSourceResponse(events())


@app.get("/agent/chat/history/{session_id}")
async def history(session_id: uuid.UUID, request: Request, limit: int = 100) -> History:
    rows = await request.app.state.pool.fetch(
        "SELECT id, role, content, created_at FROM messages WHERE session_id = $1 ORDER BY id DESC LIMIT $2",
        session_id,
        limit,
    )
    return History(
        messages=[
            Message(id=row["id"], role=row["role"], content=row["content"], created_at=row["created_at"].isoformat())
            for row in reversed(rows)
        ]
    )
