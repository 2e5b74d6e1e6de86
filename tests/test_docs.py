"""What the documents name exists, and what exists is in them."""

import argparse
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from aiohttp import web

from chatd.__main__ import make_parser
from chatd.app import ROUTES
from chatd.errors import ChatdError
from chatd.failures import TEXTS
from chatd.openapi.responses import EVENTS
from chatd.variables import SECRETS, VARIABLES

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "chatd/web/client/README.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
]
# What other programs read, and so need no row among chatd's settings.
OF_OTHERS = {"CHATD_VERSION"}
STARTED = re.compile(r"(?:^|[;|&(] ?|\b[A-Z_]+=\S* |bin/)chatd (([a-z-]+)(?: [a-z-]+)?)", re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


README = read(ROOT / "README.md")


@pytest.fixture(params=DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def prose(text: str) -> str:
    return FENCE.sub("", text)


def code(text: str) -> Iterator[str]:
    """Yield what is marked as code: spans, and the commands of consoles."""
    yield from re.findall(r"`([^`\n]+)`", prose(text))
    for language, block in FENCE.findall(text):
        if language == "console":
            yield from re.findall(r"^[$#] (.*(?:\\\n.*)*)", block, re.MULTILINE)
        elif language in {"sh", "bash"}:
            yield block


def cells(text: str, heading: str) -> Iterator[list[str]]:
    """Yield the rows of the first table whose first column has this heading."""
    table = text.partition(f"| {heading} |")[2].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        yield [cell.strip() for cell in row.strip("|").split(" | ")]


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere(document: Path) -> None:
    text = prose(read(document))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = document.parent / name if name else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(read(file)), target


def test_settings_that_are_named_exist(document: Path) -> None:
    named = re.findall(r"\b(?:CHATD|ANTHROPIC)_[A-Z][A-Z_]*[A-Z]\b|\bDATABASE_URL\b", read(document))
    known = {*VARIABLES, *OF_OTHERS, *(f"{name}_FILE" for name in SECRETS)}
    assert set(named) <= known


def test_every_setting_has_a_row() -> None:
    rows = {name for row in cells(README, "variable") for name in re.findall(r"`([A-Z_]+)`", row[0])}
    assert rows == set(VARIABLES) - {"NOTIFY_SOCKET"}


def test_every_route_has_a_row() -> None:
    rows = set()
    for first, *_ in cells(README, "method and path"):
        rows |= set(product(re.findall(r"\b[A-Z]{3,}\b", first), re.findall(r"/[^\s`]*", first)))
    routes = {(route.method, route.path) for route in ROUTES if isinstance(route, web.RouteDef)}
    assert rows == {(method, re.sub(r"\{\w+:.*\}", "…", path)) for method, path in routes}


def test_paths_that_are_named_exist(document: Path) -> None:
    routes = [route.path for route in ROUTES if isinstance(route, web.RouteDef)]
    patterns = [re.compile(re.sub(r"\{\w+(:[^}]+)?\}", r"[^/?]+", path)) for path in routes]
    for text in code(read(document)):
        for path in re.findall(r"(?<![\w.-])(?:/agent|/healthz|/readyz|/openapi|/favicon|/docs)[^\s`'\"?#,;)]*", text):
            shown = path.removesuffix("/…").rstrip(".")
            assert any(p.fullmatch(shown) or p.pattern.startswith(f"{shown}/") for p in patterns), path


def test_every_event_has_a_row() -> None:
    types = {word for kind in EVENTS for word in kind().fields["type"].metadata["enum"]}
    assert {row[0].strip("`") for row in cells(README, "event")} == types


def commands(parser: argparse.ArgumentParser, name: str = "chatd") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the commands that do something, and how each is read."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for word, inner in group.choices.items():
            yield from commands(inner, f"{name} {word}")
    if not groups:
        yield name, parser


def test_every_command_and_option_is_documented() -> None:
    documented = "\n".join(text for path in DOCUMENTS for text in code(read(path)))
    for name, parser in commands(make_parser()):
        assert name in documented
        for action in parser._actions:
            assert (
                "--help" in action.option_strings
                or not action.option_strings
                or any(option in documented for option in action.option_strings)
            ), (name, action.option_strings)


def test_commands_that_are_named_exist(document: Path) -> None:
    known = {name.removeprefix("chatd ") for name, _ in commands(make_parser())} | {"--version", "--help"}
    for text in code(read(document)):
        for two_words, word in STARTED.findall(text):
            assert known & {word, two_words}, text


def test_every_way_to_fail_is_in_the_guide() -> None:
    guide = read(ROOT / "docs/failures.md")
    codes = {kind.code for kind in subclasses(ChatdError)} | set(TEXTS)
    assert {first.strip("`") for heading in ("code", "reason") for first, *_ in cells(guide, heading)} == codes


def subclasses(kind: type[ChatdError]) -> Iterator[type[ChatdError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from subclasses(inner)


def test_targets_that_are_named_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    for text in code(read(document)):
        assert set(re.findall(r"(?:^|[;&] *)make ([a-z0-9-]+)", text)) <= targets


def test_the_map_is_of_what_is_there() -> None:
    table = read(ROOT / "ARCHITECTURE.md").partition("## The map")[2].partition("\n## ")[0]
    named: set[Path] = set()
    for row in table.splitlines():
        directory = ROOT
        for name in re.findall(r"`([^`]+)`", row.split(" | ")[0]):
            directory = (ROOT / name).parent if "/" in name.rstrip("/") else directory
            named.add(ROOT / name if "/" in name else directory / name)
    missing = {path for path in named if not path.exists()}
    assert not missing
    modules = {path for path in (ROOT / "chatd").glob("**/*.py") if path.name != "__init__.py"}
    scripts = set((ROOT / "chatd/web").glob("*.js"))
    assert {path for path in modules | scripts if path.parent not in named} <= named
