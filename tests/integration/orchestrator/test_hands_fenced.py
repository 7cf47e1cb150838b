"""A task's hands when its lease was taken over, or when its worker only says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from tests.contract.test_task_store import new_task
from tests.support.egress import gateway
from tests.support.fleet import Member, members
from tests.support.worker_process import short_directory, worker_process

from orchestrator.domain.container import Container, ContainerSpec, Limits
from orchestrator.domain.events import NewEvent
from orchestrator.domain.task import NewTask
from orchestrator.domain.workspace import scratch_workspace
from orchestrator.errors import StaleLease, WorkerRefused
from orchestrator.flow import hands as flow_hands
from orchestrator.flow.hands import Hands
from orchestrator.flow.lease import Lease, Leased
from orchestrator.flow.shares import LeaseShares
from orchestrator.flow.supply import Supply
from orchestrator.ports import Admission, PreparedTask, Runtime
from orchestrator.storage.postgres import PostgresTaskStore
from orchestrator.workers.client import HttpWorker, HttpWorkers


@dataclass(slots=True)
class OneContainer:
    """A runtime that has one container and counts what is done with it."""

    container: Container
    done: list[str] = field(default_factory=list)

    async def ensure(self, _spec: ContainerSpec) -> Container:
        self.done.append("ensure")
        return self.container

    async def poll(self, _name: str) -> Container:
        return self.container

    async def stop(self, _name: str) -> None:
        self.done.append("stop")

    async def remove(self, _name: str) -> None:
        self.done.append("remove")


@dataclass(frozen=True, slots=True)
class Desk:
    """A task, its lease and its worker."""

    task: NewTask
    lease: Lease
    runtime: OneContainer
    old: Member
    new: Member
    key: str

    def hands(self, generation: int) -> Hands:
        nothing = cast("Any", None)  # a scratch task has no repositories and no parent
        supply = Supply(nothing, nothing)
        return Hands(self.task, generation, self.lease, supply, _nothing, admit=self.admit)

    def admit(self, container: Container) -> AbstractAsyncContextManager[Admission]:
        return gateway().admit(self.task.id, container, _forget)


@pytest.fixture
async def desk(postgres_url: str) -> AsyncIterator[Desk]:
    with short_directory() as directory:
        async with (
            members(postgres_url, "old", "new") as (old, new),
            worker_process(directory) as process,
        ):
            tasks = PostgresTaskStore(old.database)
            task = new_task("t1", workspace=scratch_workspace("t1"), start=(), files=())
            await tasks.add(task, "sandbox")
            runtime = OneContainer(process.container)
            lease = Lease(
                runtime=cast("Runtime", runtime),
                workers=HttpWorkers(),
                tasks=tasks,
                limits=Limits(2**30, 1.0, 64),
                leases=old.leases,
                shares=LeaseShares(old.leases, asyncio.Event()),
            )
            key = await tasks.worker_key(task.workspace)
            yield Desk(task, lease, runtime, old, new, key)


async def _forget(_event: NewEvent) -> None:
    return None


async def _nothing(_leased: Leased, _tree: PreparedTask) -> None:
    return None


async def taken_over(desk: Desk) -> int:
    await desk.old.silence()
    return await desk.new.leases.acquire(desk.task.workspace.id)


async def test_without_its_lease_a_task_touches_no_container(desk: Desk) -> None:
    generation = await desk.old.leases.acquire(desk.task.workspace.id)
    await taken_over(desk)
    with pytest.raises(StaleLease):
        async with desk.hands(generation):
            pass
    with pytest.raises(StaleLease):
        await desk.lease.discard(desk.task.workspace, generation)
    assert desk.runtime.done == []


async def test_a_task_that_is_refused_brings_up_nothing_anew(desk: Desk) -> None:
    generation = await desk.old.leases.acquire(desk.task.workspace.id)
    async with desk.hands(generation) as hands:
        assert not (await hands.call("bash", {"command": "true"})).is_error
        newer = await taken_over(desk)
        worker = await HttpWorkers().connect(desk.runtime.container, desk.key, newer)
        for order in (hands.call("bash", {"command": "touch late"}), hands.patch()):
            with pytest.raises(StaleLease):
                await order
        assert (await worker.patch("t1")).changed_files == ()
        await worker.close()
    assert desk.runtime.done == ["ensure"]


async def test_a_worker_that_does_not_obey_is_ended_and_its_work_is_read_after_that(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(*_: object) -> None:
        await asyncio.Event().wait()

    generation = await desk.old.leases.acquire(desk.task.workspace.id)
    async with desk.hands(generation) as hands:
        await hands.call("bash", {"command": "echo x > kept"})
        monkeypatch.setattr(HttpWorker, "interrupt", deaf)
        monkeypatch.setattr(flow_hands, "OBEY_SECONDS", 0.0)
        await hands.interrupt()
        assert desk.runtime.done == ["ensure", "stop", "ensure"]
        assert (await hands.patch()).changed_files == ("kept",)


async def test_a_worker_that_answers_again_is_not_ended(desk: Desk) -> None:
    generation = await desk.old.leases.acquire(desk.task.workspace.id)
    await desk.lease.end_hung(desk.task.workspace, generation)
    assert desk.runtime.done == []
    await taken_over(desk)
    with pytest.raises(StaleLease):
        await desk.lease.end_hung(desk.task.workspace, generation, ask=False)
    assert desk.runtime.done == []


async def test_a_worker_that_lies_fails_its_task(desk: Desk) -> None:
    generation = await desk.old.leases.acquire(desk.task.workspace.id)
    async with desk.hands(generation) as hands:
        liar = await HttpWorkers().connect(desk.runtime.container, desk.key, 10**9)
        await liar.close()
        with pytest.raises(WorkerRefused, match="refuses a lease that is in force"):
            await hands.patch()
        with pytest.raises(WorkerRefused, match="refuses a lease that is in force"):
            await hands.call("bash", {"command": "true"})
