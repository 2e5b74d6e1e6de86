"""Fill a server's database with messages, faster than by asking."""

import secrets
import uuid

import asyncpg

from chatd.middlewares import ANONYMOUS

TEXT = "word " * 20
SESSION_SIZE = 1000  # messages of each session of a full database

CHATD_SESSIONS = """
INSERT INTO agent_sessions (id, owner, character_id, message_count)
SELECT 'sess-' || md5($1 || session), $2, 1, $4 FROM generate_series(1, $3) AS series (session)
RETURNING id"""
CHATD_MESSAGES = """
INSERT INTO agent_messages (id, session_id, role, content)
SELECT 'msg-' || md5($1 || session || '.' || n), 'sess-' || md5($1 || session),
    CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END, $4
FROM generate_series(1, $2) AS sessions (session) CROSS JOIN generate_series(1, $3) AS messages (n)
ORDER BY session, n"""
PEER_SESSION = "INSERT INTO sessions (id, character_id) VALUES ($1, 1)"
PEER_MESSAGES = """
INSERT INTO messages (session_id, role, content)
SELECT $1, CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END, $3
FROM generate_series(1, $2) AS messages (n) ORDER BY n"""


async def one_session(server: str, dsn: str, size: int) -> str:
    """Make a session of `size` messages and return its id."""
    if server == "FastAPI":
        return await fill_peer(dsn, size)
    return await fill_chatd(dsn, 1, size)


async def many_sessions(server: str, dsn: str, messages: int) -> None:
    """Make sessions of many messages each."""
    assert server == "chatd"
    await fill_chatd(dsn, max(1, messages // SESSION_SIZE), min(messages, SESSION_SIZE))


async def fill_chatd(dsn: str, sessions: int, size: int) -> str:
    conn = await asyncpg.connect(dsn)
    try:
        salt = secrets.token_hex(8)
        session_id: str = await conn.fetchval(CHATD_SESSIONS, salt, ANONYMOUS, sessions, size)
        await conn.execute(CHATD_MESSAGES, salt, sessions, size, TEXT)
        await conn.execute("VACUUM ANALYZE agent_messages, agent_sessions")
    finally:
        await conn.close()
    return session_id


async def fill_peer(dsn: str, size: int) -> str:
    conn = await asyncpg.connect(dsn)
    try:
        session_id = uuid.uuid4()
        await conn.execute(PEER_SESSION, session_id)
        await conn.execute(PEER_MESSAGES, session_id, size, TEXT)
        await conn.execute("VACUUM ANALYZE messages")
    finally:
        await conn.close()
    return str(session_id)
