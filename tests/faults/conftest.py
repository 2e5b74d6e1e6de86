"""The fault suite: how much of it is run, by which seed, and the table of what came out."""

import gc
import os
import platform
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.faults.counting_model import CountingModel
from tests.faults.supervisor import Supervisor, supervised

QUICK_SEED = 1
REPORT = """# The last full run of the fault suite

Made by `make test-faults-full`. After each fault the invariants were checked (`tests/faults/invariants.py`): every
acknowledged message is there once; every turn has ended; ids run from 1 without a gap or a repeat, at every client and
in the database; what a client saw, what the database holds and what the model had to say are the same text; nobody saw
anybody else's.

"""
ROW = "row"  # the user properties that a row of the table is made of
FIGURES = "figures"


@dataclass(frozen=True)
class Scale:
    """How much of each fault; waits are in seconds."""

    kills: int  # D2
    kill_callers: int
    kill_interval: tuple[float, float]
    cutting_callers: int  # C1, C2
    cuts: int
    storm_turns: int  # C5
    storm_readers: int  # of each turn
    storm_kicks: int
    deaf_readers: int  # C3
    good_readers: int
    racing_posts: int  # C6
    doubtful_posts: int
    tabs: int  # C8
    slow_loris: int  # C11
    held_sockets: int  # D6
    crash_passes: tuple[int, ...]  # D1: at which pass of a crash point
    streams: int  # P
    restarts: int  # P1, P2
    outage: float  # P3, P4
    resets: int  # P5
    process_kills: int  # D2, two processes
    drained: int  # D3: callers
    drains: int


SCALES = {
    "quick": Scale(
        kills=4,
        kill_callers=15,
        kill_interval=(1.0, 2.0),
        cutting_callers=20,
        cuts=5,
        storm_turns=10,
        storm_readers=10,
        storm_kicks=5,
        deaf_readers=200,
        good_readers=100,
        racing_posts=50,
        doubtful_posts=5,
        tabs=20,
        slow_loris=100,
        held_sockets=80,
        crash_passes=(1,),
        streams=20,
        restarts=3,
        outage=6.0,
        resets=20,
        process_kills=4,
        drained=50,
        drains=1,
    ),
    "full": Scale(
        kills=100,
        kill_callers=50,
        kill_interval=(1.0, 5.0),
        cutting_callers=50,
        cuts=20,
        storm_turns=50,
        storm_readers=20,
        storm_kicks=20,
        deaf_readers=200,
        good_readers=100,
        racing_posts=50,
        doubtful_posts=30,
        tabs=50,
        slow_loris=300,
        held_sockets=80,
        crash_passes=(1, 2, 5),
        streams=50,
        restarts=20,
        outage=30.0,
        resets=100,
        process_kills=30,
        drained=200,
        drains=10,
    ),
}


@pytest.fixture(autouse=True)
def no_collections() -> Iterator[None]:
    """Keep the garbage collector off: clients and model server live here, and would stand still for a second of it.

    A row's hundred thousand events would be gone through in the middle of the next one's measurement.
    """
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--scale", choices=[*SCALES], default="quick", help="how much of each fault")
    group.addoption("--seed", type=int, help="of everything random; quick: 1, full: a new one")
    group.addoption("--report", type=Path, metavar="FILE", help="write the table of results as Markdown")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: takes long, or says little on a small scale: not in the quick run")
    if config.option.seed is None:
        quick = config.option.scale == "quick"
        config.option.seed = QUICK_SEED if quick else random.SystemRandom().randrange(1 << 32)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.scale == "quick" and not config.option.keyword:
        left_out = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_report_header(config: pytest.Config) -> str:
    return describe(config)


def describe(config: pytest.Config) -> str:
    return f"faults: --scale {config.option.scale} --seed {config.option.seed}"


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> Scale:
    return SCALES[request.config.option.scale]


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Return this test's own random numbers, the same ones for the same seed whatever else runs."""
    return random.Random(f"{request.config.option.seed} {request.node.name}")


@pytest.fixture
async def model() -> AsyncIterator[CountingModel]:
    server = CountingModel()
    await server.start()
    yield server
    await server.stop()


Supervise = Callable[..., Awaitable[Supervisor]]


@pytest.fixture
async def supervise(tmp_path: Path, dsn: str, model: CountingModel) -> AsyncIterator[Supervisor | Supervise]:
    """Yield a function that starts a supervised chatd, with settings by keyword, and returns when it is ready."""
    async with AsyncExitStack() as stack:

        async def start(name: str = "chatd", *, pass_socket: bool = True, **environment: str) -> Supervisor:
            settings = {"DATABASE_URL": dsn, "ANTHROPIC_BASE_URL": model.url} | environment
            supervisor = Supervisor(tmp_path / name, pass_socket=pass_socket, environment=settings)
            return await stack.enter_async_context(supervised(supervisor))

        yield start


Note = Callable[[object], None]


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """Return a function that puts figures into the test's row of the table."""
    return lambda figures: record_property(FIGURES, str(figures))


@pytest.fixture(autouse=True)
def row(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Name the test's row of the table by the first line of its docstring."""
    if doc := request.function.__doc__:
        record_property(ROW, doc.partition("\n")[0])


@pytest.fixture(autouse=True, scope="session")
async def versions(cluster: str, request: pytest.FixtureRequest) -> None:
    """Remember the version of PostgreSQL for the report."""
    conn = await asyncpg.connect(cluster)
    request.config.stash[POSTGRES] = await conn.fetchval("SHOW server_version")
    await conn.close()


POSTGRES = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [*table_head(config), *rows(reports)]
    terminalreporter.write_line("\n".join(["", *lines]))
    if config.option.report:
        config.option.report.write_text(REPORT + "\n".join(lines) + "\n", encoding="utf-8")


def table_head(config: pytest.Config) -> Iterator[str]:
    date = datetime.now(UTC).date()
    versions = f"Python {platform.python_version()}, PostgreSQL {config.stash.get(POSTGRES, 'not used')}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    machine = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, {memory} GiB"
    yield f"{describe(config)}, {date}, {versions}, {machine}"
    yield ""
    yield "| fault | what came out | result | seconds |"
    yield "| --- | --- | --- | --- |"


def rows(reports: list[pytest.TestReport]) -> Iterator[str]:
    for report in reports:
        figures = "; ".join(str(value) for key, value in report.user_properties if key == FIGURES)
        names = [str(value) for key, value in report.user_properties if key == ROW]
        if names and report.when == "call":
            yield f"| {names[0]} | {figures} | {report.outcome} | {report.duration:.1f} |"
