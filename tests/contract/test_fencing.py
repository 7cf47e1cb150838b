"""What a holder of an old lease writes is refused, by every store."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from tests.contract.test_task_store import ENDING, FAILURE, new_task
from tests.support.fleet import Member, members
from tests.support.worker_process import (
    KEY,
    WorkerProcess,
    short_directory,
    worker_process,
)

from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.errors import StaleLease, TaskNotFound, WorkerRefused, WorkerUnreachable
from orchestrator.ports import EventLog, TaskStore
from orchestrator.storage.postgres import PostgresEventLog, PostgresTaskStore
from orchestrator.workers.client import HttpWorker, HttpWorkers

FINISHED = NewEvent(EventKind.FINISHED, 4, {}, "once")


@dataclass(frozen=True, slots=True)
class Writers:
    """The stores, and two executors that take the lease of a task's workspace in turn."""

    tasks: TaskStore
    events: EventLog
    old: Member
    new: Member
    workspace_id: str

    async def take_over(self) -> tuple[int, int]:
        """The generation of the former holder and that of the present one."""
        old = await self.old.leases.acquire(self.workspace_id)
        await self.old.silence()
        return old, await self.new.leases.acquire(self.workspace_id)


@pytest.fixture(params=["postgres"])
async def writers(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[Writers]:
    async with members(postgres_url, "old", "new") as (old, new):
        tasks, events = PostgresTaskStore(old.database), PostgresEventLog(old.database)
        task = await tasks.add(new_task("t1"), "sandbox")
        yield Writers(tasks, events, old, new, task.workspace.id)
        await events.close()


def step(number: int, key: str = "") -> NewEvent:
    return NewEvent(EventKind.TOOL, number, {"number": number}, key)


async def numbers(writers: Writers) -> list[int]:
    await writers.events.append("t1", FINISHED)
    return [event.number async for event in writers.events.follow("t1")]


async def test_events_of_an_old_lease_are_refused(writers: Writers) -> None:
    old = await writers.old.leases.acquire(writers.workspace_id)
    await writers.events.append("t1", step(1), old)
    await writers.old.silence()
    new = await writers.new.leases.acquire(writers.workspace_id)
    with pytest.raises(StaleLease):
        await writers.events.append("t1", step(2), old)
    await writers.events.append("t1", step(2), new)
    assert await numbers(writers) == [1, 2, 3]


async def test_an_event_that_is_recorded_already_is_no_way_around(writers: Writers) -> None:
    old, new = await writers.take_over()
    await writers.events.append("t1", step(1, "once"), new)
    with pytest.raises(StaleLease):
        await writers.events.append("t1", step(1, "once"), old)
    assert (await writers.events.append("t1", step(1, "once"), new)).number == 1


async def test_an_ending_of_an_old_lease_is_refused(writers: Writers) -> None:
    old, new = await writers.take_over()
    with pytest.raises(StaleLease):
        await writers.tasks.finish("t1", FAILURE, old)
    assert (await writers.tasks.get("t1")).ending is None
    assert (await writers.tasks.finish("t1", ENDING, new)).ending == ENDING
    with pytest.raises(StaleLease):
        await writers.tasks.finish("t1", FAILURE, old)


async def test_a_generation_that_nobody_was_given_is_refused(writers: Writers) -> None:
    for generation in (0, 1, 7):
        with pytest.raises(StaleLease):
            await writers.events.append("t1", step(1), generation)
        with pytest.raises(StaleLease):
            await writers.tasks.finish("t1", ENDING, generation)
    assert await numbers(writers) == [1]


async def test_an_unknown_task_stays_unknown(writers: Writers) -> None:
    with pytest.raises(TaskNotFound):
        await writers.events.append("nobody", step(1), 1)
    with pytest.raises(TaskNotFound):
        await writers.tasks.finish("nobody", ENDING, 1)


async def test_nothing_of_the_old_one_comes_after_the_new_one_has_the_lease(
    writers: Writers,
) -> None:
    """Writers race with the takeover; what got in was in before it."""
    old = await writers.old.leases.acquire(writers.workspace_id)
    await writers.old.silence()
    accepted: list[int] = []

    async def write(number: int) -> None:
        try:
            event = await writers.events.append("t1", step(number), old)
        except StaleLease:
            return
        accepted.append(event.number)

    async def take() -> int:
        await asyncio.sleep(0.01)
        await writers.new.leases.acquire(writers.workspace_id)
        rows = await writers.new.database.rows("SELECT last_event FROM tasks WHERE id = 't1'")
        return int(rows[0]["last_event"])

    writing = [asyncio.create_task(write(number)) for number in range(100)]
    seen = await take()
    await asyncio.gather(*writing)
    assert sorted(accepted) == list(range(1, seen + 1))
    assert await numbers(writers) == list(range(1, seen + 2))


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
async def process(directory: Path) -> AsyncIterator[WorkerProcess]:
    async with worker_process(directory) as process:
        yield process


async def connected(process: WorkerProcess, generation: int, key: str = KEY) -> HttpWorker:
    return await HttpWorkers().connect(process.container, key, generation)


async def require_refused(worker: HttpWorker) -> None:
    """Whatever is asked of the worker, it refuses."""
    orders = (
        worker.repositories(),
        worker.prepare("t", [], [], install=False),
        worker.patch("t"),
        worker.interrupt("t"),
        worker.keep_output("t", "a", "text"),
        worker.claim(),
    )
    for order in orders:
        with pytest.raises(StaleLease):
            await order
    with pytest.raises(WorkerUnreachable):
        async with worker.toolbox("t") as toolbox:
            await toolbox.call("bash", {"command": "touch late"})


async def test_a_worker_refuses_all_orders_of_an_old_lease(process: WorkerProcess) -> None:
    old, same = await connected(process, 1), await connected(process, 1)
    await old.prepare("t", [], [], install=False)
    assert list(await same.repositories()) == []
    new = await connected(process, 2)
    await require_refused(old)
    await require_refused(same)
    assert (await new.patch("t")).changed_files == ()
    with pytest.raises(StaleLease):
        await connected(process, 1)
    for worker in (old, same, new):
        await worker.close()


async def test_a_restarted_worker_still_knows_the_newest_lease(directory: Path) -> None:
    async with worker_process(directory) as process:
        await (await connected(process, 5)).close()
    async with worker_process(directory) as process:
        with pytest.raises(StaleLease, match="5 has taken its place"):
            await connected(process, 4)
        await (await connected(process, 5)).close()


async def test_who_has_no_key_cannot_shut_others_out(process: WorkerProcess) -> None:
    worker = await connected(process, 1)
    with pytest.raises(WorkerRefused, match="another key"):
        await connected(process, 9, "another-key-that-is-long")
    async with process.client("another-key-that-is-long") as client:
        answer = await client.get("/repositories", headers={"Berth-Generation": "9"})
    assert answer.status_code == httpx2.codes.FORBIDDEN
    assert list(await worker.repositories()) == []
    await worker.close()


@pytest.mark.parametrize("sent", ["", "-1", "x", "1.0", "9" * 19])
async def test_a_generation_that_is_no_number_is_refused(process: WorkerProcess, sent: str) -> None:
    await (await connected(process, 1)).close()
    async with process.client() as client:
        answer = await client.get("/repositories", headers={"Berth-Generation": sent})
    assert answer.status_code == httpx2.codes.BAD_REQUEST


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff", b"-3"])
async def test_a_damaged_generation_is_told(directory: Path, content: bytes) -> None:
    async with worker_process(directory) as process:
        await (await connected(process, 1)).close()
        (process.workspace / "generation").write_bytes(content)
        await (await connected(process, 2)).close()  # what tools write there does not count now
        (process.workspace / "generation").write_bytes(content)
    async with worker_process(directory) as process:
        with pytest.raises(WorkerRefused, match=r"generation was damaged\..*DELETE"):
            await connected(process, 3)
