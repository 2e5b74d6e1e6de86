"""The package, the machines it is installed on, and a model server in their network."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deploy.hall import Hall, open_hall, run, why_not
from tests.deploy.machine import Machine, booted
from tests.deploy.site import MODEL_PORT, ROOT, Site, configure, inside, install
from tests.faults.counting_model import CountingModel

PACKAGE = "build/chatd_*.deb"
MADE_OF = ROOT / "build/chatd.sources"
SOURCES = ("chatd", "sql", "deploy", "*.md", "setup.cfg", "pyproject.toml", "chatd.service")
BUILD_TIMEOUT = 900.0  # seconds; pip may have to download what the package holds


@pytest.fixture(scope="session", autouse=True)
def possible() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
async def package() -> Path:
    """Return the package that `make deb` builds, which takes minutes: not again where nothing in it has changed."""
    sources = await read_sources()
    if not is_made_of(sources):
        await run("make", f"--directory={ROOT}", "deb", timeout=BUILD_TIMEOUT)
        MADE_OF.write_text(sources)
    (package,) = ROOT.glob(PACKAGE)
    return package


async def read_sources() -> str:
    """Return the names and hashes of what the package is made of, and what was changed since git has hashed it."""
    git = ("git", "-C", str(ROOT))
    known = await run(*git, "ls-files", "--stage", "--", *SOURCES)
    return known + await run(*git, "diff", "--binary", "--", *SOURCES)


def is_made_of(sources: str) -> bool:
    """Tell whether there is a package of these; one that was built since that was noted may be of others."""
    built = [package.stat().st_mtime for package in ROOT.glob(PACKAGE)]
    return bool(built) and MADE_OF.exists() and MADE_OF.stat().st_mtime >= max(built) and MADE_OF.read_text() == sources


@pytest.fixture(scope="session")
async def hall(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hall]:
    async with open_hall(tmp_path_factory.mktemp("machines")) as hall:
        yield hall


@pytest.fixture(scope="session")
def package_inside(package: Path) -> str:
    return inside(package)


@pytest.fixture(scope="session")
def binds(package: Path) -> list[str]:
    return [f"{package.parent}:/packages"]


@pytest.fixture(scope="session")
async def installed(hall: Hall, package_inside: str, binds: list[str]) -> list[str]:
    """Install the package and configure it, once: return what other machines are based on."""
    async with booted(hall, binds=binds) as machine:
        await install(machine, package_inside)
        await configure(machine)
        await machine.run("systemctl", "restart", "chatd")
        await machine.power_off()
        return [machine.upper]


@pytest.fixture
async def bare(hall: Hall, binds: list[str]) -> AsyncIterator[Machine]:
    """Yield a machine without chatd."""
    async with booted(hall, binds=binds) as machine:
        yield machine


@pytest.fixture
async def machine(hall: Hall, installed: list[str], binds: list[str]) -> AsyncIterator[Machine]:
    """Yield a machine with chatd."""
    async with booted(hall, installed, binds) as machine:
        yield machine


@pytest.fixture
async def model(hall: Hall) -> AsyncIterator[CountingModel]:
    """Yield a model server in the machines' network; what the test opens meanwhile is there, too."""
    model = CountingModel()
    with hall.network():
        await model.start(MODEL_PORT)
        yield model
        await model.stop()


@pytest.fixture
async def site(machine: Machine, model: CountingModel) -> AsyncIterator[Site]:
    """Yield a chatd that answers."""
    site = Site(machine)
    await site.up()
    yield site
    await site.close()
    assert not model.strange
