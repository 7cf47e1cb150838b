"""What every `WorkspaceSettingsStore` does."""

from collections.abc import AsyncIterator

import pytest

from orchestrator.domain.workspace import scratch_workspace
from orchestrator.domain.workspace_settings import (
    ContainerChoice,
    EgressChoice,
    WorkspaceSettings,
)
from orchestrator.errors import WorkspaceNotFound
from orchestrator.ports import WorkspaceSettingsStore
from orchestrator.storage.postgres import Database, PostgresTaskStore
from orchestrator.storage.postgres.workspace_settings import PostgresWorkspaceSettings

HERE, ELSEWHERE = scratch_workspace("t1"), scratch_workspace("t2")
SETTINGS = WorkspaceSettings(
    ContainerChoice(memory_bytes=2**40, cpus=1.25), EgressChoice(5, None, ("a.test:443", "*.b"))
)


@pytest.fixture(params=["postgres"])
async def store(
    request: pytest.FixtureRequest, postgres_url: str
) -> AsyncIterator[WorkspaceSettingsStore]:
    database = await Database.open(postgres_url)
    for workspace in (HERE, ELSEWHERE):
        await PostgresTaskStore(database).worker_key(workspace)
    yield PostgresWorkspaceSettings(database)
    await database.close()


async def test_nothing_is_set_at_first(store: WorkspaceSettingsStore) -> None:
    assert await store.get(HERE.id) == WorkspaceSettings()


async def test_what_is_put_is_got_and_replaced_whole(store: WorkspaceSettingsStore) -> None:
    await store.put(HERE.id, SETTINGS)
    assert await store.get(HERE.id) == SETTINGS
    assert await store.get(ELSEWHERE.id) == WorkspaceSettings()
    await store.put(HERE.id, WorkspaceSettings(ContainerChoice(pids=64)))
    assert await store.get(HERE.id) == WorkspaceSettings(ContainerChoice(pids=64))


@pytest.mark.parametrize("name", ["nobody", "", "a\0b", "\ud800"])
async def test_a_workspace_that_is_not_there(store: WorkspaceSettingsStore, name: str) -> None:
    with pytest.raises(WorkspaceNotFound):
        await store.get(name)
    with pytest.raises(WorkspaceNotFound):
        await store.put(name, SETTINGS)
