"""Workers that are stopped where they stand, from outside or by a command."""

import asyncio
from collections.abc import AsyncIterator, Callable

import docker
import httpx2
import pytest
from tests.acceptance.conftest import DOCKER_ONLY
from tests.support.gated_model import Call, GatedModel, gated_model
from tests.support.repositories import SourceRepository
from tests.support.service import Service
from tests.support.sleepers import new_sleep, short_sleep, until_sleeping
from tests.support.tasks import Json, begun, events_of, until_ended
from tests.support.victims import Victims

KEEP = Call("bash", {"command": "echo kept >> kept.txt"})


def bash(command: str) -> tuple[Call, ...]:
    return (Call("bash", {"command": command}),)


@pytest.fixture
async def model() -> AsyncIterator[GatedModel]:
    async with gated_model() as model:
        yield model


@pytest.fixture
async def http(own_service: Service, model: GatedModel) -> AsyncIterator[httpx2.AsyncClient]:
    own_service.settings = {"GPT_OSS_URL": model.url}
    await asyncio.to_thread(own_service.start)
    async with own_service.client(300.0) as http:
        yield http


async def running(
    http: httpx2.AsyncClient, model: GatedModel, fresh: SourceRepository, command: str
) -> str:
    """A task that has completed a step and is to run a command."""
    conversation = model.add("Freeze", [(KEEP,), bash(command)])
    task_id = await begun(http, "Freeze", repo_url=str(fresh.path))
    await conversation.until_given(1)
    return task_id


async def sleeping(
    http: httpx2.AsyncClient,
    model: GatedModel,
    fresh: SourceRepository,
    seconds: float,
    then: str = "true",
) -> str:
    """A task that has completed a step and whose command sleeps now."""
    task_id = await running(http, model, fresh, f"sleep {seconds}; {then}")
    await until_sleeping(seconds)
    return task_id


async def freeze_worker(service: Service, http: httpx2.AsyncClient) -> None:
    victims = Victims(service, await container_of(http))
    await victims.hold_still(await victims.worker())


async def container_of(http: httpx2.AsyncClient) -> str:
    [task] = (await http.get("/tasks", params={"status": "running"})).json()
    name: str = task["workspace"]["container"]
    return name


async def cancelled(http: httpx2.AsyncClient, task_id: str) -> Json:
    assert (await http.post(f"/tasks/{task_id}/cancel")).status_code < 300
    return await until_ended(http, task_id)


async def test_a_cancel_keeps_the_work_of_a_task_whose_worker_is_frozen(
    own_service: Service, http: httpx2.AsyncClient, model: GatedModel, fresh: SourceRepository
) -> None:
    task_id = await sleeping(http, model, fresh, new_sleep())
    await freeze_worker(own_service, http)
    result = await cancelled(http, task_id)

    assert result["status"] == "cancelled"
    assert result["changed_files"] == ["kept.txt"]
    assert result["notices"] == []


async def test_a_frozen_worker_is_replaced_and_its_call_made_again(
    own_service: Service, http: httpx2.AsyncClient, model: GatedModel, fresh: SourceRepository
) -> None:
    task_id = await sleeping(http, model, fresh, short_sleep(), then="echo once >> kept.txt")
    await freeze_worker(own_service, http)
    result = await until_ended(http, task_id)

    assert result["status"] == "succeeded", result
    assert result["diff"].count("+kept") == 1
    assert result["diff"].count("+once") == 1
    how = [each.data["how"] for each in await events_of(http, task_id) if each.name == "container"]
    assert len(how) == 2


@pytest.mark.long
async def test_a_command_that_freezes_its_worker_each_time_ends_the_task(
    http: httpx2.AsyncClient, model: GatedModel, fresh: SourceRepository
) -> None:
    # A worker that is let go on before it is ended must not come to the command's end.
    task_id = await running(http, model, fresh, f"kill -STOP $PPID; sleep {new_sleep()}")
    result = await until_ended(http, task_id)

    assert result["status"] == "failed"
    assert result["error"]["code"] == "worker_hangs"
    assert result["changed_files"] == ["kept.txt"]


@DOCKER_ONLY
async def test_a_container_that_somebody_pauses_is_brought_back(
    own_service: Service, http: httpx2.AsyncClient, model: GatedModel, fresh: SourceRepository
) -> None:
    task_id = await sleeping(http, model, fresh, short_sleep(), then="echo once >> kept.txt")
    await asyncio.to_thread(on_engine, own_service, await container_of(http), "pause")
    result = await until_ended(http, task_id)

    assert result["status"] == "succeeded", result
    assert result["diff"].count("+once") == 1


@pytest.mark.long
@DOCKER_ONLY
async def test_a_cancel_keeps_the_work_in_a_container_that_somebody_has_paused(
    own_service: Service, http: httpx2.AsyncClient, model: GatedModel, fresh: SourceRepository
) -> None:
    task_id = await sleeping(http, model, fresh, new_sleep())
    await asyncio.to_thread(on_engine, own_service, await container_of(http), "pause")
    result = await cancelled(http, task_id)

    assert result["status"] == "cancelled"
    assert result["changed_files"] == ["kept.txt"]


def on_engine(service: Service, container: str, what: str) -> None:
    """Do something to a container behind the service's back."""
    client = docker.from_env()
    try:
        act: Callable[[str], None] = getattr(client.api, what)
        act(f"{container}.{service.deployment}")
    finally:
        client.close()
