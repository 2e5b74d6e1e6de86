"""The package, the machines it is installed on, and a model server in their network."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deploy.hall import Hall, open_hall, why_not

ROOT = Path(__file__).parents[2]
BUILD_TIMEOUT = 900.0  # seconds; pip downloads what the package holds


@pytest.fixture(scope="session", autouse=True)
def possible() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
async def hall(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hall]:
    async with open_hall(tmp_path_factory.mktemp("tests-machines")) as hall:
        yield hall
