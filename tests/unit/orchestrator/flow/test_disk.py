"""A watch over disks whose engine or database is away now and then."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from orchestrator.clock import SystemClock
from orchestrator.domain.container import Container, ContainerState, Endpoint, Limits
from orchestrator.domain.disk import DiskUse
from orchestrator.domain.events import NewEvent
from orchestrator.errors import DatabaseUnavailable, RuntimeFailure
from orchestrator.flow.disk import DiskWatch
from orchestrator.flow.lease import Leased

LIMITS = Limits(2**30, 1.0, 64, disk_bytes=100)
CONTAINER = Container(
    name="repo-1",
    workspace_id="1",
    runtime="fake",
    state=ContainerState.RUNNING,
    endpoint=Endpoint(Path("/none"), "http://worker"),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    fingerprint="f",
)


@dataclass(slots=True)
class Scene:
    """A runtime with one container, and its worker, as a test wants them."""

    uses: list[int | None]
    state: ContainerState = ContainerState.RUNNING
    done: list[str] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)

    async def poll(self, _name: str) -> Container | None:
        self.done.append("poll")
        return None if self.state is ContainerState.STOPPED else CONTAINER

    async def disk_use(self, _name: str) -> DiskUse:
        used = self.uses.pop(0) if len(self.uses) > 1 else self.uses[0]
        self.done.append("measure")
        if used is None:
            raise RuntimeFailure("It cannot be measured.")
        return DiskUse(used, 0.0)

    async def disk_free(self) -> int | None:
        return None

    async def stop(self, _name: str) -> None:
        self.done.append("stop")
        self.state = ContainerState.STOPPED

    async def interrupt(self, _task_id: str) -> None:
        self.done.append("interrupt")

    async def report(self, event: NewEvent) -> None:
        self.events.append(event)

    async def no_limits(self, _workspace_id: str) -> Limits:
        raise DatabaseUnavailable("Postgres does not answer.")

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)


class HastyClock(SystemClock):
    """A clock by which measuring is soon due again."""

    def monotonic(self) -> float:
        return 100 * super().monotonic()


@asynccontextmanager
async def watch(scene: Scene) -> AsyncIterator[DiskWatch]:
    found = DiskWatch(cast("Any", scene), LIMITS, scene.no_limits, HastyClock())
    run = asyncio.create_task(found.run())
    yield found
    assert not run.done()
    run.cancel()
    await asyncio.wait({run})


def leased(scene: Scene) -> Leased:
    return Leased(CONTAINER, cast("Any", scene), 1)


async def test_without_a_database_the_limits_of_the_deployment_count() -> None:
    scene = Scene([10, 200])
    async with watch(scene) as watched, watched.guard("t", leased(scene), scene.report) as guard:
        await scene.until(lambda: "interrupt" in scene.done)
        assert scene.events[0].data["limit_bytes"] == 100
        assert "were ended" in guard.take_sentence()


async def test_a_measurement_that_fails_is_made_again() -> None:
    scene = Scene([None, None, 200])
    async with watch(scene) as watched, watched.guard("t", leased(scene), scene.report):
        await scene.until(lambda: bool(scene.events))
    assert scene.done.count("measure") >= 3


async def test_what_does_not_run_is_not_measured() -> None:
    scene = Scene([10], ContainerState.STOPPED)
    async with watch(scene) as watched:
        async with watched.guard("t", leased(scene), scene.report):
            pass
        await scene.until(lambda: "poll" in scene.done)
    assert "measure" not in scene.done
