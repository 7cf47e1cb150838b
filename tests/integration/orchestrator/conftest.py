"""Fixtures: every runtime of this machine, and a house of real parts around it."""

from collections.abc import AsyncIterator

import pytest
from tests.support.containers import US, Household
from tests.support.fleet import members
from tests.support.runtimes import Bench, problem_with, require

from orchestrator.storage.postgres import PostgresTaskStore


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
    async with members(postgres_url, US) as (member,):
        tasks = PostgresTaskStore(member.database)
        yield Household(bench, tasks, member, bench.make(agent_command=None))
