"""Fixtures: every runtime of this machine, and a house of real parts around it."""

from collections.abc import AsyncIterator

import pytest
from tests.support.containers import Household
from tests.support.runtimes import Bench, problem_with, require

from orchestrator.storage.postgres import Database, PostgresTaskStore


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("sandbox", marks=pytest.mark.sandbox),
    ]
)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Runtimes of each kind in turn; skipped, or failed if CI=true, where there is none."""
    kind = request.param
    require(await problem_with(kind))
    bench = Bench(kind)
    yield bench
    await bench.clean()


@pytest.fixture
async def household(bench: Bench, postgres_url: str) -> AsyncIterator[Household]:
    """A runtime with real workers, and a database."""
    database = await Database.open(postgres_url)
    yield Household(bench, PostgresTaskStore(database), bench.make(agent_command=None))
    await database.close()
