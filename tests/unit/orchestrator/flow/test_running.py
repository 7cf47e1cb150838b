"""The tasks that are at work in this process."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from orchestrator.flow.running import RunningTasks


class Worker:
    """Works on one task until it is interrupted, and remembers how."""

    def __init__(self, running: RunningTasks, task_id: str) -> None:
        self._running = running
        self._task_id = task_id
        self.begun = asyncio.Event()
        self.interrupted_by_stop: bool | None = None
        self.work = asyncio.create_task(self._run())

    async def _run(self) -> None:
        with self._running.entered(self._task_id):
            self.begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0)  # leaving takes a moment
                self.interrupted_by_stop = self._running.stopping.is_set()


async def at_work(running: RunningTasks, *task_ids: str) -> list[Worker]:
    workers = [Worker(running, task_id) for task_id in task_ids]
    for worker in workers:
        await worker.begun.wait()
    return workers


async def test_one_task_is_cancelled_alone() -> None:
    running = RunningTasks()
    one, other = await at_work(running, "one", "other")
    assert running.cancel("one")
    await one.work
    assert one.interrupted_by_stop is False
    assert not other.work.done()
    await running.stop()


async def test_a_task_that_is_not_here_cannot_be_cancelled() -> None:
    running = RunningTasks()
    [worker] = await at_work(running, "one")
    assert not running.cancel("other")
    running.cancel("one")
    await worker.work
    assert not running.cancel("one")


async def test_an_ending_is_not_interrupted_by_being_asked_for_again() -> None:
    running, ended = RunningTasks(), asyncio.Event()
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        with running.entered("one"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asked.set()
                await go_on.wait()
                ended.set()

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert running.cancel("one")
    await asked.wait()
    assert running.cancel("one")
    go_on.set()
    await working
    assert ended.is_set()


async def test_stopping_waits_until_every_task_has_left() -> None:
    running = RunningTasks()
    workers = await at_work(running, *"abc")
    await running.stop()
    assert [worker.interrupted_by_stop for worker in workers] == [True, True, True]


async def test_stopping_without_tasks_ends_at_once() -> None:
    running = RunningTasks()
    await running.stop()
    assert running.stopping.is_set()


async def test_requests_to_cancel_are_heeded() -> None:
    running = RunningTasks()
    one, other = await at_work(running, "one", "other")

    async def cancels() -> AsyncIterator[str]:
        yield "elsewhere"
        yield "one"

    await running.heed(cancels())
    await one.work
    assert not other.work.done()
    await running.stop()


async def test_an_abandoned_task_knows_that_it_does_not_end() -> None:
    running = RunningTasks()
    left: dict[str, tuple[bool, bool]] = {}

    async def work(task_id: str) -> None:
        with running.entered(task_id):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                left[task_id] = (running.is_abandoned, running.is_leaving)

    tasks = [asyncio.create_task(work(task_id)) for task_id in ("one", "other", "third")]
    await asyncio.sleep(0)
    running.abandon("one")
    running.cancel("other")
    running.abandon("elsewhere")
    await asyncio.gather(*tasks[:2])
    await running.stop()
    assert left == {"one": (True, True), "other": (False, False), "third": (False, True)}


async def test_a_task_may_come_back_before_its_first_run_has_left() -> None:
    running = RunningTasks()
    [first] = await at_work(running, "one")
    running.abandon("one")
    [second] = await at_work(running, "one")
    await first.work
    assert not second.work.done()
    assert running.cancel("one")
    await second.work
    assert not running.cancel("one")


async def test_a_task_leaves_also_when_it_fails() -> None:
    running = RunningTasks()
    with pytest.raises(ValueError, match="broken"), running.entered("one"):
        raise ValueError("broken")
    assert not running.cancel("one")
