"""When a worker counts as hanging, and what becomes of what waits for it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from orchestrator.domain.container import Container, ContainerState, Endpoint
from orchestrator.errors import WorkerHangs
from orchestrator.flow import pulse
from orchestrator.flow.pulse import Patience, answering, until_silent

CONTAINER = Container(
    name="repo-1",
    workspace_id="1",
    runtime="sandbox",
    state=ContainerState.RUNNING,
    endpoint=Endpoint(None, "http://127.0.0.1:1"),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    fingerprint="f",
)
AT_ONCE = Patience(every_seconds=0.0, hang_seconds=0.0, questions=2)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "AGAIN_SECONDS", 0.0)


@dataclass(slots=True)
class Worker:
    """Answers as it is told, and then never again."""

    answers: Sequence[bool]
    asked: int = 0

    async def __call__(self, container: Container) -> bool:
        assert container is CONTAINER
        self.asked += 1
        return self.asked <= len(self.answers) and self.answers[self.asked - 1]


async def test_one_question_without_an_answer_is_no_silence() -> None:
    worker = Worker([True, False, True, False, True])
    async with asyncio.timeout(30):
        await until_silent(CONTAINER, worker, AT_ONCE)
    assert worker.asked == 7


async def test_quick_refusals_are_no_silence_before_its_time() -> None:
    worker = Worker([])
    patience = Patience(every_seconds=0.0, hang_seconds=3_600.0, questions=2)
    watching = asyncio.create_task(until_silent(CONTAINER, worker, patience))
    async with asyncio.timeout(30):
        while worker.asked < 100:
            await asyncio.sleep(0)
    assert not watching.done()
    watching.cancel()


async def test_what_waits_for_a_worker_that_hangs_is_broken_off() -> None:
    with pytest.raises(WorkerHangs, match="repo-1 hangs"):
        async with asyncio.timeout(30), answering(CONTAINER, Worker([True]), AT_ONCE):
            await asyncio.Event().wait()
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_errors_and_time_limits_inside_stay_what_they_are() -> None:
    for error in (TimeoutError("mine"), ValueError("mine")):
        with pytest.raises(type(error), match="mine"):
            async with answering(CONTAINER, Worker([])):
                raise error


async def test_nobody_is_asked_after_the_end() -> None:
    worker = Worker([True] * 10**6)
    async with answering(CONTAINER, worker, AT_ONCE):
        while not worker.asked:
            await asyncio.sleep(0)
    asked = worker.asked
    for _ in range(10):
        await asyncio.sleep(0)
    assert worker.asked <= asked + 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
