"""Postgres goes away under running tasks and comes back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from tests.acceptance.conftest import SANDBOX_ONLY
from tests.support.gated_model import Call, Conversation, GatedModel, gated_model
from tests.support.outage import OutsidePostgres
from tests.support.repositories import SourceRepository
from tests.support.service import Service
from tests.support.tasks import begun, events_of, frames, until_ended

pytestmark = SANDBOX_ONLY

APPEND = (Call("bash", {"command": "echo kept >> kept.txt; cat kept.txt"}),)


@pytest.fixture
async def outside(passable_directory: Path) -> AsyncIterator[OutsidePostgres]:
    postgres = OutsidePostgres(passable_directory)
    yield postgres
    await postgres.stop()


async def test_a_task_outlives_an_outage_that_callers_are_told_of(
    own_service: Service, fresh: SourceRepository, outside: OutsidePostgres
) -> None:
    async with gated_model() as model:
        own_service.settings = {"GPT_OSS_URL": model.url, "DATABASE_URL": await outside.start()}
        await asyncio.to_thread(own_service.start)
        async with own_service.client() as http:
            first, second = await held_task(http, model, fresh), await held_task(http, model, fresh)
            following = asyncio.create_task(all_events(own_service, first[0]))
            # One task stands before its first step, the other after a tool call.
            second[1].release(0)
            await second[1].until_asked(1)
            await outside.kill()

            first[1].release_all()
            second[1].release_all()
            told = await asyncio.gather(
                http.get(f"/tasks/{first[0]}"),
                http.get("/tasks"),
                http.post("/orchestrate", json={"query": "Append"}),
            )
            assert [each.status_code for each in told] == [503] * 3
            assert {each.json()["code"] for each in told} == {"database_unavailable"}
            assert (await http.get("/health")).status_code == 200
            # By now the outage is longer than callers are made to wait, and tasks are not lost.
            await outside.start()

            for task_id, _ in (first, second):
                task = await until_ended(http, task_id)
                assert task["status"] == "succeeded", task
                assert task["diff"].count("+kept") == 1
                recorded = await events_of(http, task_id)
                steps = [(each.name, each.data["step"]) for each in recorded if each.data["step"]]
                assert steps == [("model", 1), ("tool", 2), ("model", 3), ("finished", 3)]
            async with asyncio.timeout(30):
                assert await following == [each.id for each in await events_of(http, first[0])]
            # New work is taken, too.
            third = await held_task(http, model, fresh)
            third[1].release_all()
            assert (await until_ended(http, third[0]))["status"] == "succeeded"
        assert await asyncio.to_thread(own_service.stop) == 0


async def held_task(
    http: httpx2.AsyncClient, model: GatedModel, repository: SourceRepository
) -> tuple[str, Conversation]:
    """A task whose model has been asked for its first turn."""
    token = uuid4().hex
    conversation = model.add(token, [APPEND])
    conversation.hold(0)
    conversation.hold(1)
    task_id = await begun(http, f"Append {token}", repo_url=str(repository.path))
    await conversation.until_asked(0)
    return task_id, conversation


async def all_events(service: Service, task_id: str) -> list[str]:
    """The ids that one reader sees who was there before the outage."""
    async with (
        service.client(120.0) as http,
        http.stream("GET", f"/tasks/{task_id}/events") as response,
    ):
        return [frame.id async for frame in frames(response)]
