"""Tasks that are the first of their workspace at the same moment."""

import asyncio

from orchestrator.domain.repository import RepositoryUrl
from orchestrator.domain.workspace import workspace_of
from orchestrator.storage.postgres.pool import Database
from orchestrator.storage.postgres.tasks import PostgresTaskStore

AT_ONCE = 10
ROUNDS = 10


async def test_first_uses_at_once_agree_on_the_key(postgres_url: str) -> None:
    database = await Database.open(postgres_url)
    try:
        tasks = PostgresTaskStore(database)
        for number in range(ROUNDS):
            url = RepositoryUrl("https", "example.org", 443, f"/{number}")
            keys = await asyncio.gather(
                *(tasks.worker_key(workspace_of([url])) for _ in range(AT_ONCE))
            )
            assert len(set(keys)) == 1
        assert len(await tasks.workspaces()) == ROUNDS
    finally:
        await database.close()
