"""A watch over a container's disk, and what a task learns from it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from tests.support.escape import LIMITS, TASK, Cell
from tests.support.runtimes import MIB

from orchestrator.clock import SystemClock
from orchestrator.domain.container import Limits
from orchestrator.domain.disk import DiskUse
from orchestrator.domain.events import NewEvent
from orchestrator.flow.disk import DiskGuard, DiskWatch
from orchestrator.flow.lease import Leased
from orchestrator.ports import Runtime

LIMIT = 32 * MIB
TOO_MUCH = LIMIT // MIB + 8
"""In MiB."""


class Measuring:
    """A runtime that remembers what it has measured."""

    def __init__(self, inner: Runtime) -> None:
        self._inner = inner
        self.uses: list[DiskUse] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def disk_use(self, name: str) -> DiskUse:
        use = await self._inner.disk_use(name)
        self.uses.append(use)
        return use


@dataclass(slots=True)
class Watching:
    """A watch at work, and the events that its guards have reported."""

    watch: DiskWatch
    runtime: Measuring
    events: list[NewEvent] = field(default_factory=list)

    @asynccontextmanager
    async def guard(self, inmate: Cell, worker: object = None) -> AsyncIterator[DiskGuard]:
        """Guard a cell's task; returns once its container was measured."""

        async def report(event: NewEvent) -> None:
            self.events.append(event)

        leased = Leased(inmate.container, cast("Any", worker or inmate.worker), 1)
        measured = len(self.runtime.uses)
        async with self.watch.guard(TASK, leased, report) as guard:
            async with asyncio.timeout(60):
                while len(self.runtime.uses) == measured:
                    await asyncio.sleep(0.05)
            yield guard


@asynccontextmanager
async def watching(runtime: Runtime) -> AsyncIterator[Watching]:
    """Watch containers of a runtime; each may hold `LIMIT` bytes."""

    async def limits_of(_workspace_id: str) -> Limits:
        return replace(LIMITS, disk_bytes=LIMIT)

    measuring = Measuring(runtime)
    watch = DiskWatch(cast("Any", measuring), LIMITS, limits_of, SystemClock())
    run = asyncio.create_task(watch.run())
    try:
        yield Watching(watch, measuring)
    finally:
        run.cancel()
        await asyncio.wait({run})
