"""Fixtures for contract tests: every runtime of this machine."""

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.support.engine_proxy import ProxiedBench
from tests.support.gcs import GcsServer, gcs_server
from tests.support.runtimes import Bench, problem_with, require


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("proxied", marks=[pytest.mark.docker, pytest.mark.long]),
        pytest.param("sandbox", marks=pytest.mark.sandbox),
    ]
)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Runtimes of each kind in turn; skipped, or failed if CI=true, where there is none."""
    is_proxied = request.param == "proxied"
    kind = "docker" if is_proxied else request.param
    require(await problem_with(kind))
    bench = ProxiedBench() if is_proxied else Bench(kind)
    yield bench
    await bench.clean()


@pytest.fixture(scope="session")
def gcs() -> Iterator[GcsServer]:
    """A stand-in for Google Cloud Storage."""
    with gcs_server() as server:
        yield server
