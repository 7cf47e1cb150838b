"""Cancels that are asked for while the connection that brings them is broken."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.test_task_store import new_task
from tests.support.outage import OutsidePostgres

from orchestrator.storage.postgres import Database, PostgresTaskStore, cancels, migrate
from orchestrator.storage.postgres.cancels import PostgresCancels

DEADLINE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A break is not to be noticed by asking: that comes late."""
    monkeypatch.setattr(cancels, "_HEARTBEAT_SECONDS", 3_600.0)


async def follower(database: Database, tasks: PostgresTaskStore) -> AsyncIterator[str]:
    """Follows the cancels of `t1` and `t2`; has heard of the first."""
    for task_id in ("t1", "t2"):
        await tasks.add(new_task(task_id), "sandbox")
    followed: AsyncIterator[str] = PostgresCancels(database).follow()
    await tasks.request_cancel("t1")
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await anext(followed) == "t1"
    return followed


async def until_heard(followed: AsyncIterator[str], task_id: str) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for heard in followed:
            if heard == task_id:
                return


async def test_a_cancel_beside_a_broken_connection_is_heard(postgres_url: str) -> None:
    database = await Database.open(postgres_url)
    tasks = PostgresTaskStore(database)
    followed = await follower(database, tasks)
    ended = await database.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    )
    assert len(ended) == 1

    await tasks.request_cancel("t2")
    await until_heard(followed, "t2")
    await database.close()


async def test_a_cancel_after_a_crash_of_postgres_is_heard(passable_directory: Path) -> None:
    postgres = OutsidePostgres(passable_directory)
    url = await postgres.start()
    try:
        await migrate(url)
        database = await Database.open(url)
        tasks = PostgresTaskStore(database)
        followed = await follower(database, tasks)
        hearing = asyncio.create_task(until_heard(followed, "t2"))
        await postgres.kill()
        await postgres.start()

        await tasks.request_cancel("t2")
        await hearing
        await database.close()
    finally:
        await postgres.stop()
