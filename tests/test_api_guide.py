"""What docs/api.md and the README show is what comes: each of their examples is run, against a real chatd."""

import os
import sys
from pathlib import Path

import pytest

from tests.chat_client import Chat
from tests.conftest import Start
from tests.documents import blocks, reading, translate
from tests.faults.proxy import proxied
from tests.javascript import CLIENT, NODE, run
from tests.model_server import Exchange, ModelServer, says
from tests.token_provider import SECRET

ROOT = Path(__file__).parent.parent
TOOLS = Path(sys.executable).parent
SEA = (
    "The ocean's a vast and mysterious realm that exists on every corner of our planet, where countless creatures live "
)
HELLO = ("I", "'m", *(f" {number}" for number in range(22)), "?")  # events 2 to 26 of their turn
ANSWERS = {
    "What is the capital of France?": ("The capital of France", " is Paris."),
    "And of Spain?": ("Madrid.",),
    "And of Italy?": ("The capital", " of Italy", " is Rome."),
    "And of Greece?": ("Athens.",),
    "Write one sentence about the sea.": (
        "The ocean's a vast and mysterious realm that exists on every corner of our planet, ",
        "where countless creatures live and thrive.",
    ),
    "Say hello.": HELLO,
}


def environment() -> dict[str, str]:
    path = os.pathsep.join((str(TOOLS), str(NODE.parent), os.environ["PATH"]))
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "CHATD_JWT_SECRET": SECRET, "CHATD_AUTH": "jwt"}


# Nobody else stops a story within milliseconds of having asked for it.
PATIENCE = 'curl() { case "$*" in */chat/stop/*) sleep 0.5 ;; esac; command curl "$@"; }'
STORIES = {
    "Tell me a long story.": "Once upon a time",
    "Tell a long story about the sea.": "In the mystique of the sea lies a tale that has been passed down",
}


class Geographer:
    """A model that knows capitals, fails when it is asked for Portugal's first, and tells stories without end."""

    def __init__(self) -> None:
        self.is_tired = True

    async def __call__(self, exchange: Exchange) -> None:
        question = exchange.request.messages[-1][1]
        if question == "And of Portugal?" and self.is_tired:
            self.is_tired = False
            await exchange.fail(529, "overloaded_error")
        elif question == "And of Atlantis?":
            await exchange.fail(400, "invalid_request_error")
        elif question in STORIES:
            await says(STORIES[question], *[" and a time"] * 600, delay=0.1)(exchange)
        else:
            await says(*ANSWERS.get(question, ("Lisbon.",)), delay=0.25)(exchange)


def url_of(chat: Chat) -> str:
    return str(chat.client.make_url("")).rstrip("/")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where a reader works: with the client installed."""
    (tmp_path / "work" / "node_modules").mkdir(parents=True)
    (tmp_path / "work" / "node_modules" / "chatd-client").symlink_to(CLIENT)
    return tmp_path / "work"


async def test_the_guide(start: Start, model: ModelServer, directory: Path) -> None:
    model.default = Geographer()
    anyone = await start(retry_factor=1.0)
    guarded = await start(auth="jwt", jwt_secret=SECRET, rate_messages=3, rate_turns=4)
    places = {"http://127.0.0.1:8000": url_of(anyone), "http://127.0.0.1:8001": url_of(guarded)}
    async with reading(directory, environment(), places) as reader:
        await reader.run(PATIENCE)
        assert await reader.follow((ROOT / "docs/api.md").read_text(), directory) > 30


async def test_its_program_in_python_loses_nothing(chat: Chat, model: ModelServer, directory: Path) -> None:
    model.default = Geographer()
    guide = (ROOT / "docs/api.md").read_text()
    program = next(text for language, text in blocks(guide) if language == "python")
    async with proxied(("127.0.0.1", chat.client.port)) as cutting:
        cutting.limit = 1150  # the head, the first event, and not all of the others
        (directory / "chat.py").write_text(translate(program, {"http://127.0.0.1:8000": cutting.url}))
        assert await run(sys.executable, "chat.py", cwd=directory) == "The capital of France is Paris.\nMadrid.\n"
        assert cutting.accepted > 2
    assert len(model.requests) == 2


def readme() -> str:
    """Return the part of the README that shows how chatd is called."""
    return (ROOT / "README.md").read_text().partition("\n## Use it\n")[2].partition("\n## ")[0]


async def test_the_readme(chat: Chat, model: ModelServer, directory: Path) -> None:
    model.default = Geographer()
    forms = {"usage": r'"token_usage":\{[^}]*\}', "length": r'"length":\d+'}  # it shows the local model's
    places = {"localhost:8000": url_of(chat).removeprefix("http://")}
    async with reading(directory, environment(), places, **forms) as reader:
        await reader.run(PATIENCE)
        assert await reader.follow(readme(), directory) >= 7


async def test_the_programs_of_the_readme(chat: Chat, model: ModelServer, directory: Path) -> None:
    model.default = Geographer()
    url = url_of(chat)
    in_node = {
        '"/web/client/chatd-client.js"': '"chatd-client"',
        "{ characterId: 1 }": f'{{ baseUrl: "{url}", characterId: 1 }}',
        "http://127.0.0.1:8000": url,
    }
    commands = {"python": (sys.executable, "a.py"), "javascript": (NODE, "--experimental-eventsource", "a.mjs")}
    programs = [(language, text) for language, text in blocks(readme()) if language in commands]
    assert len(programs) == 3
    for language, text in programs:
        (directory / commands[language][-1]).write_text(translate(text, in_node))
        assert "".join(HELLO) in await run(*commands[language], cwd=directory)


async def test_the_program_in_python_takes_a_failure_for_the_end(
    chat: Chat, model: ModelServer, directory: Path
) -> None:
    model.default = Geographer()
    program = next(text for language, text in blocks(readme()) if language == "python")
    names = {"http://127.0.0.1:8000": url_of(chat), "Say hello.": "And of Atlantis?"}
    (directory / "a.py").write_text(translate(program, names))
    printed = await run(sys.executable, "a.py", cwd=directory)
    assert "did not accept the request" in printed
    assert "was cut" not in printed


@pytest.mark.parametrize(
    ("shown", "right"),
    [("Paris", True), ("…is", True), ("Rome", False), (f"sess-{'0' * 32} Paris", False), ("Par\nis", False)],
)
async def test_what_is_not_so_would_be_found(directory: Path, shown: str, right: bool) -> None:
    async with reading(directory, environment(), {}) as reader:
        text = f"```console\n$ echo Paris\n{shown}\n```\n"
        if right:
            assert await reader.follow(text, directory) == 1
        else:
            with pytest.raises(AssertionError, match="This was printed:\nParis"):
                await reader.follow(text, directory)


async def test_an_id_is_the_same_wherever_it_stands(directory: Path) -> None:
    one, other = f"sess-{'1' * 32}", f"sess-{'2' * 32}"
    async with reading(directory, environment(), {}) as reader:
        reader.compare(f"{one} {other} {one}", f"{other} {one} {other}")
        reader.compare(one, other)
        for printed in (one, f"sess-{'3' * 32}"):
            with pytest.raises(AssertionError):
                reader.compare(one, printed)
