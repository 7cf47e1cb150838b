"""Services as processes, one a runtime for the session, and repositories for them."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from tests.support.repositories import SourceRepository, new_repository, sample_repository
from tests.support.runtimes import problem_with, require
from tests.support.scripted import scripted_model
from tests.support.service import Service, passable_directory, running_service

PLAYS = Path(__file__).parent / "plays"
GIT_HOST = "127.0.0.2"
"""The one loopback address that services may fetch from."""

API_KEY = "sk-must-stay-outside"
RUNTIMES = [
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("sandbox", marks=pytest.mark.sandbox),
]


@pytest.fixture(scope="session")
def sources() -> Iterator[Path]:
    """The directory that services may take local repositories from."""
    directory = passable_directory()
    yield directory
    shutil.rmtree(directory)


SANDBOX_ONLY = pytest.mark.parametrize("runtime", RUNTIMES[1:], indirect=True)
"""For what does not depend on the runtime."""

DOCKER_ONLY = pytest.mark.parametrize("runtime", RUNTIMES[:1], indirect=True)


@pytest.fixture(scope="session", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime in turn; skipped, or failed if CI=true, where it is missing."""
    kind: str = request.param
    require(asyncio.run(problem_with(kind)))
    return kind


@pytest.fixture(scope="session")
def service(runtime: str, sources: Path) -> Iterator[Service]:
    """A service with our plays that all tests of a runtime share; it must end without a trace."""
    settings = {
        "LLM_API_KEY": API_KEY,
        "BERTH_ALLOW_HOSTS": GIT_HOST,
        "BERTH_MODEL_TIMEOUT_SECONDS": "3",
        "BERTH_MAX_REPOSITORY_BYTES": str(2 * 2**20),
        "BERTH_MAX_STEPS": "40",
    }
    with scripted_model(PLAYS) as model:
        settings["GPT_OSS_URL"] = model.url
        with running_service(runtime, [sources], settings) as service:
            yield service
            family = service.family()
            assert service.stop() == 0, service.log.read_text()
            assert service.leftovers(family) == []
            for line in service.log.read_text().splitlines():
                # The one line of another kind is what a second service said, see `test_lifecycle`.
                assert line.startswith("berth: ") or json.loads(line)["level"] != "error", line


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the shared service."""
    async with service.client() as client:
        yield client


@pytest.fixture(scope="session")
def sample(sources: Path) -> SourceRepository:
    """A repository with a bit of everything, see `tests.support.repositories`."""
    return sample_repository(sources / "sample")


@pytest.fixture
def fresh(sources: Path, tmp_path: Path) -> Iterator[SourceRepository]:
    """A small repository that no other test knows."""
    path = sources / tmp_path.name
    yield new_repository(path)
    shutil.rmtree(path)


@pytest.fixture
def own_service(runtime: str, sources: Path) -> Iterator[Service]:
    """A service of one test, not yet started."""
    service = Service(runtime, [sources])
    yield service
    service.remove()
