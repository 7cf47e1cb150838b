"""Several orchestrators on one database: they share the work, and none of it needs any one."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from tests.acceptance.conftest import PLAYS, SANDBOX_ONLY
from tests.support.repositories import SourceRepository
from tests.support.scripted import scripted_model
from tests.support.service import Service
from tests.support.sleepers import new_sleep, until_sleeping, wakeable, waking
from tests.support.tasks import (
    begun,
    events_of,
    frames,
    succeed,
)

pytestmark = pytest.mark.timeout(400)  # a takeover takes its time on a slow machine

HEARTBEAT_SECONDS = 1.0
RUNNING_TASKS = 16
"""At most, on one orchestrator at once."""

TAKEN_OVER_SECONDS = 120.0
WORK = "echo kept >> kept.txt"


@dataclass(slots=True)
class Pair:
    """Two orchestrators of one deployment on one database."""

    one: Service
    other: Service
    database_url: str
    seconds: int = field(default_factory=new_sleep)
    """How long its tasks would sleep if nobody woke them."""

    async def rows(self, statement: str) -> list[asyncpg.Record]:
        """Ask the database itself."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    async def record(self) -> list[asyncpg.Record]:
        """All that is recorded of tasks."""
        return [
            *await self.rows("SELECT * FROM events ORDER BY task_id, number"),
            *await self.rows("SELECT * FROM tasks ORDER BY id"),
        ]

    async def start_other(self) -> None:
        """Start the other and wait until both were heard for long enough to judge each other."""
        await asyncio.to_thread(self.other.start)
        await self.until(
            "SELECT FROM executors WHERE heartbeat_at - started_at "
            f"> interval '{4 * HEARTBEAT_SECONDS} seconds' HAVING count(*) = 2"
        )

    async def until(self, statement: str, seconds: float = 60.0) -> None:
        """Wait until a statement returns a row."""
        async with asyncio.timeout(seconds):
            while not await self.rows(statement):
                await asyncio.sleep(0.05)


@pytest.fixture
async def pair(runtime: str, sources: Path, postgres_url: str) -> AsyncIterator[Pair]:
    """Not yet started."""
    async with AsyncExitStack() as stack:
        model = stack.enter_context(scripted_model(PLAYS))
        settings = {
            "GPT_OSS_URL": model.url,
            "DATABASE_URL": postgres_url,
            "BERTH_MAX_RUNNING_TASKS": str(RUNNING_TASKS),
            "BERTH_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
        }
        one = Service(runtime, [sources], settings)
        other = Service(runtime, [sources], settings)
        if runtime == "docker":  # containers are the engine's, sandboxes their orchestrator's
            other.deployment = one.deployment
        for service in (one, other):
            stack.push_async_callback(asyncio.to_thread, service.remove)
        yield Pair(one, other, postgres_url)


async def executor_of(service: Service) -> str:
    async with service.client() as http:
        health: dict[str, Any] = (await http.get("/health")).json()
    executor: str = health["executor"]
    return executor


async def start_with_sleeping(
    pair: Pair, count: int, repositories: Sequence[SourceRepository] = ()
) -> list[str]:
    """Start both with tasks that the first one has, two in each repository, the others without.

    Their command sleeps until somebody wakes it.
    """
    await asyncio.to_thread(pair.one.start)
    query = f"Run: {WORK}; {wakeable(pair.seconds)}"
    ids = []
    async with pair.one.client() as http:
        for number in range(count):
            body = {}
            if number < 2 * len(repositories):
                body["repo_url"] = str(repositories[number % len(repositories)].path)
            ids.append(await begun(http, query, **body))
    await until_sleeping(pair.seconds, min(count, RUNNING_TASKS))
    await pair.start_other()
    return ids


async def require_ended_once(http: httpx2.AsyncClient, ids: Sequence[str]) -> None:
    """Every task ends, with one effect of its command and nothing recorded twice."""
    for task_id in ids:
        async with asyncio.timeout(TAKEN_OVER_SECONDS):
            events = await events_of(http, task_id)
        task = (await http.get(f"/tasks/{task_id}")).json()
        assert task["status"] == "succeeded", task
        assert task["diff"].count("+kept") == 1
        names = [event.name for event in events]
        assert [names.count(each) for each in ("accepted", "tool", "finished")] == [1, 1, 1], names
        assert names.count("model") == 2
        assert names[-1] == "finished"


async def until_called(http: httpx2.AsyncClient, task_id: str) -> None:
    """Wait until the model has called a tool."""
    async with http.stream("GET", f"/tasks/{task_id}/events") as response:
        async for frame in frames(response):
            if frame.name == "model":
                return


def said(service: Service, event: str) -> list[dict[str, Any]]:
    """The lines of a service's log that are about an event."""
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("count", [6, pytest.param(20, marks=pytest.mark.long)])
async def test_one_is_killed_and_the_other_ends_its_tasks(
    pair: Pair, sample: SourceRepository, fresh: SourceRepository, count: int
) -> None:
    ids = await start_with_sleeping(pair, count, [sample, fresh])

    pair.one.process.kill()
    await asyncio.to_thread(pair.one.wait)

    async with waking(pair.seconds), pair.other.client(TAKEN_OVER_SECONDS) as http:
        await require_ended_once(http, ids)
    assert len(said(pair.other, "executor_dead")) == 1
    assert await asyncio.to_thread(pair.other.stop) == 0


async def test_one_that_was_stopped_past_its_lease_is_refused_and_goes_on(
    pair: Pair, sample: SourceRepository
) -> None:
    ids = await start_with_sleeping(pair, 6, [sample])
    executor = await executor_of(pair.one)

    pair.one.process.send_signal(signal.SIGSTOP)
    async with waking(pair.seconds), pair.other.client(TAKEN_OVER_SECONDS) as http:
        await require_ended_once(http, ids)
    before = await pair.record()
    pair.one.process.send_signal(signal.SIGCONT)

    await pair.until(f"SELECT FROM executors WHERE id = '{executor}'")
    async with asyncio.timeout(60):
        while len(said(pair.one, "task_left")) < 2:
            await asyncio.sleep(0.05)
    assert {line["code"] for line in said(pair.one, "task_left")} == {"stale_lease"}
    assert said(pair.one, "task_broke") == []

    assert await asyncio.to_thread(pair.other.stop) == 0
    assert await pair.record() == before
    async with pair.one.client() as http:
        await succeed(http, "Run: true", repo_url=str(sample.path))
        await require_ended_once(http, ids)
    assert await asyncio.to_thread(pair.one.stop) == 0


@SANDBOX_ONLY
async def test_both_take_tasks(pair: Pair) -> None:
    for service in (pair.one, pair.other):
        service.settings = {**service.settings, "BERTH_MAX_RUNNING_TASKS": "2"}
    await asyncio.to_thread(pair.one.start)
    await pair.start_other()
    executors = {await executor_of(pair.one), await executor_of(pair.other)}
    assert len(executors) == 2
    async with pair.one.client() as http:
        ids = [await begun(http, f"Run: {WORK}; sleep 0.5") for _ in range(10)]
        await require_ended_once(http, ids)
    leases = await pair.rows("SELECT executor_id, generation, held FROM leases")
    assert {row["executor_id"] for row in leases} == executors
    assert [row["generation"] for row in leases] == [1] * len(ids)
    assert not any(row["held"] for row in leases)


@SANDBOX_ONLY
async def test_whoever_stops_in_good_order_hands_its_tasks_over_at_once(pair: Pair) -> None:
    ids = await start_with_sleeping(pair, 6)
    assert await asyncio.to_thread(pair.one.stop) == 0
    assert len(await pair.rows("SELECT FROM executors")) == 1
    async with waking(pair.seconds), pair.other.client(TAKEN_OVER_SECONDS) as http:
        await require_ended_once(http, ids)
    assert said(pair.other, "executor_dead") == []


@SANDBOX_ONLY
async def test_a_database_that_was_away_for_longer_than_a_lease_costs_no_task(
    own_service: Service,
) -> None:
    with scripted_model(PLAYS) as model:
        own_service.settings = {"GPT_OSS_URL": model.url, "BERTH_HEARTBEAT_SECONDS": "0.1"}
        await asyncio.to_thread(own_service.start)
        async with own_service.client() as http:
            ids = [await begun(http, f"Run: {WORK}; sleep 3") for _ in range(2)]
            for task_id in ids:
                await until_called(http, task_id)
            (postmaster,) = (own_service.data_dir / "postgres").rglob("postmaster.pid")
            os.kill(int(postmaster.read_text().split()[0]), signal.SIGKILL)
            await require_ended_once(http, ids)
        assert said(own_service, "leases_lost") == said(own_service, "executor_buried") == []
        assert await asyncio.to_thread(own_service.stop) == 0
