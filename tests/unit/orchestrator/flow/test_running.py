"""Tasks that run beside the requests that asked for them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from orchestrator.domain.budget import Budget
from orchestrator.domain.task import NewTask, Task
from orchestrator.domain.workspace import scratch_workspace
from orchestrator.errors import DatabaseUnavailable
from orchestrator.flow.running import RunningTasks


def new_task(task_id: str) -> NewTask:
    workspace = scratch_workspace(task_id)
    return NewTask(task_id, "q", workspace, (), (), Budget(1, 1, 1.0))


class Endings:
    """Runs tasks like the real one: whatever happens, an ending is recorded."""

    def __init__(self, end: Callable[[], Awaitable[None]] | None = None) -> None:
        self.begun = asyncio.Event()
        self.recorded: list[str] = []
        self._end = end

    async def run(self, task: NewTask) -> Task:
        try:
            self.begun.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # recording takes a moment
            if self._end is not None:
                await self._end()
            self.recorded.append(task.id)
        return None  # type: ignore[return-value]  # nobody looks at it here


async def test_a_caller_that_goes_away_does_not_end_its_task() -> None:
    endings = Endings()
    running = RunningTasks(endings.run)

    async def request() -> None:
        await asyncio.shield(running.start(new_task("a")))

    caller = asyncio.create_task(request())
    await endings.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert endings.recorded == []
    await running.cancel_all()
    assert endings.recorded == ["a"]


async def test_all_endings_are_recorded_before_cancelling_is_done() -> None:
    endings = Endings()
    running = RunningTasks(endings.run)
    for name in "abc":
        running.start(new_task(name))
    await endings.begun.wait()
    await running.cancel_all()
    assert sorted(endings.recorded) == ["a", "b", "c"]
    await running.cancel_all()
    assert len(endings.recorded) == 3


async def test_a_task_that_had_no_time_to_begin_is_recorded_too() -> None:
    endings = Endings()
    running = RunningTasks(endings.run)
    running.start(new_task("a"))
    await running.cancel_all()
    assert endings.recorded == ["a"]


async def test_an_ending_that_cannot_be_recorded_does_not_keep_the_others_from_it() -> None:
    async def refuse() -> None:
        raise DatabaseUnavailable("down")

    bad, good = Endings(refuse), Endings()

    async def run(task: NewTask) -> Task:
        return await (bad if task.id == "bad" else good).run(task)

    running = RunningTasks(run)
    lost = running.start(new_task("bad"))
    running.start(new_task("good"))
    await running.cancel_all()
    assert good.recorded == ["good"]
    with pytest.raises(DatabaseUnavailable):
        await lost
