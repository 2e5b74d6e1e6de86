"""The typed keys under which the application and a request hold what handlers need."""

from aiohttp import web

from chatd.config import Config
from chatd.journal import Journal
from chatd.llm import Llm
from chatd.mirrors import Mirrors
from chatd.repo import Repo
from chatd.turns import Turns

CONFIG = web.AppKey("CONFIG", Config)
REPO = web.AppKey("REPO", Repo)
JOURNAL = web.AppKey("JOURNAL", Journal)
LLM = web.AppKey("LLM", Llm)
MIRRORS = web.AppKey("MIRRORS", Mirrors)
TURNS = web.AppKey("TURNS", Turns)

OWNER = web.RequestKey("OWNER", str)
REQUEST_ID = web.RequestKey("REQUEST_ID", str)
