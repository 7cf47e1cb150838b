"""Keep workspaces within their limit on disk: measure them, and end what fills them."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import structlog

from orchestrator.domain.container import Container, ContainerState, Limits
from orchestrator.domain.disk import (
    DiskLook,
    DiskRecord,
    DiskUse,
    DiskVerdict,
    decide_disk,
    disk_sentence,
    is_due,
)
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.errors import BerthError, DiskExhausted
from orchestrator.flow.lease import Leased, OwnLimits
from orchestrator.ports import Clock, Report, Runtime, Worker

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.5
AT_ONCE = 2
INTERRUPT_SECONDS = 5.0
"""How long a worker may take to end what runs; then it is stopped if the workspace still grows."""


class DiskGuard:
    """What one task learns of its workspace's disk.

    Args:
        task_id: The task.
        worker: Runs its commands.
        report: Records an event of the task.
    """

    def __init__(self, task_id: str, worker: Worker, report: Report) -> None:
        self._task_id = task_id
        self._worker = worker
        self._report = report
        self._sentence = ""
        self._stopped: DiskExhausted | None = None

    def take_sentence(self) -> str:
        """What the model has not been told yet, or nothing."""
        sentence, self._sentence = self._sentence, ""
        return sentence

    def take_stop(self) -> DiskExhausted | None:
        """The error, once, if the container was stopped under the task."""
        stopped, self._stopped = self._stopped, None
        return stopped

    async def tell(self, sentence: str, use: DiskUse, limit_bytes: int) -> None:
        """Let the model and the user know."""
        self._sentence = sentence
        event = NewEvent(
            EventKind.NOTICE,
            0,
            {
                "text": sentence,
                "code": DiskExhausted.code,
                "used_bytes": use.used_bytes,
                "limit_bytes": limit_bytes,
            },
            f"disk {secrets.token_hex(4)}",
        )
        try:
            await self._report(event)
        except BerthError as failure:  # the task meets it by itself
            log.warning("disk_not_told", task=self._task_id, code=failure.code)

    async def interrupt(self) -> None:
        """End what the task runs, if the worker does as it is told."""
        try:
            async with asyncio.timeout(INTERRUPT_SECONDS):
                await self._worker.interrupt(self._task_id)
        except (BerthError, TimeoutError) as failure:
            log.warning("disk_not_interrupted", task=self._task_id, failure=type(failure).__name__)

    def stopped(self, error: DiskExhausted) -> None:
        """The container is about to be stopped."""
        self._stopped = error


@dataclass(slots=True)
class _Watched:
    """A container that runs.

    `above` is the newest use if that is above the limit. `renewed` tells that a task came by since
    it was last asked whether it runs.
    """

    name: str
    workspace_id: str
    limit_bytes: int
    record: DiskRecord = field(default_factory=DiskRecord)
    look: DiskLook | None = None
    above: DiskUse | None = None
    renewed: bool = True
    is_measured: bool = False
    guards: set[DiskGuard] = field(default_factory=set)

    def sentence(self, verdict: DiskVerdict, use: DiskUse) -> str:
        """What is to be told of a verdict."""
        return disk_sentence(self.name, verdict, use, self.limit_bytes)


class DiskWatch:
    """Measures every container that runs, as long as it runs: commands can outlive their task.

    Args:
        runtime: Where containers run.
        limits: What a container may use as long as its workspace's own limits are not known.
        limits_of: Tells what the container of a workspace may use.
        clock: Tells when measuring is due.
    """

    def __init__(
        self, runtime: Runtime, limits: Limits, limits_of: OwnLimits, clock: Clock
    ) -> None:
        self._runtime = runtime
        self._limits = limits
        self._limits_of = limits_of
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._measuring = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def guard(self, task_id: str, leased: Leased, report: Report) -> AsyncIterator[DiskGuard]:
        """Watch a container for a task while the context lasts, and until it is idle."""
        watched = self._begun(leased.container)
        guard = DiskGuard(task_id, leased.worker, report)
        if watched.above is not None:
            await guard.tell(watched.sentence(DiskVerdict.TELL, watched.above), watched.above,
                             watched.limit_bytes)  # fmt: skip
        watched.guards.add(guard)
        try:
            yield guard
        finally:
            watched.guards.discard(guard)

    async def take_over(self) -> None:
        """Watch the containers that an earlier process has left running.

        Raises:
            RuntimeUnavailable: The engine does not answer.
        """
        for container in await self._runtime.list():
            runs = container.state is ContainerState.RUNNING
            if runs and container.made_here and container.workspace_id:
                self._begun(container)

    async def run(self) -> None:
        """Measure what is due until cancelled."""
        async with asyncio.TaskGroup() as looks:
            while True:
                await asyncio.sleep(TICK_SECONDS)
                if not self._watched:
                    continue
                free = await self._free()
                for watched in self._watched.values():
                    if not watched.is_measured and self._is_due(watched, free):
                        watched.is_measured = True
                        looks.create_task(self._look(watched))

    def _is_due(self, watched: _Watched, free: int | None) -> bool:
        if watched.look is None:
            return True
        return is_due(watched.look, self._clock.monotonic(), free, len(self._watched))

    def _begun(self, container: Container) -> _Watched:
        name = container.name
        watched = self._watched.setdefault(
            name, _Watched(name, container.workspace_id, self._limits.disk_bytes)
        )
        watched.renewed = True
        return watched

    async def _free(self) -> int | None:
        try:
            return await self._runtime.disk_free()
        except BerthError:
            return None  # the engine is away; measuring says so

    async def _look(self, watched: _Watched) -> None:
        try:
            async with self._measuring:
                await self._measured(watched)
        except BerthError as failure:  # the next look may find the engine or the database back
            log.warning("disk_not_measured", container=watched.name, code=failure.code,
                        detail=failure.detail)  # fmt: skip
            self._postpone(watched)
        except Exception:
            # A defect of ours must not end the watch for good.
            log.exception("disk_watch_broke", container=watched.name)
            self._postpone(watched)
        finally:
            watched.is_measured = False

    async def _measured(self, watched: _Watched) -> None:
        if not await self._runs(watched):
            return
        free, use = await self._free(), await self._runtime.disk_use(watched.name)
        limit = watched.limit_bytes = await self._limit(watched)
        verdict, watched.record = decide_disk(watched.record, use, limit)
        room = limit - use.used_bytes if use.whole else min(limit - use.used_bytes, -1)
        watched.look = DiskLook(self._clock.monotonic(), use.seconds, room, free)
        watched.above = None if verdict is DiskVerdict.WITHIN else use
        if verdict not in {DiskVerdict.WITHIN, DiskVerdict.BEAR}:
            await self._act(watched, verdict, use)

    async def _limit(self, watched: _Watched) -> int:
        try:
            return (await self._limits_of(watched.workspace_id)).disk_bytes
        except BerthError as failure:  # a disk fills whether the database answers or not
            log.warning("disk_limit_not_read", container=watched.name, code=failure.code)
            return watched.limit_bytes

    async def _act(self, watched: _Watched, verdict: DiskVerdict, use: DiskUse) -> None:
        if verdict is DiskVerdict.INTERRUPT and not watched.guards:
            verdict = DiskVerdict.STOP  # no task is at work, so nobody has asked for what runs
        sentence = watched.sentence(verdict, use)
        log.warning("disk_exhausted", container=watched.name, verdict=verdict.value,
                    used_bytes=use.used_bytes, limit_bytes=watched.limit_bytes)  # fmt: skip
        guards = tuple(watched.guards)
        if verdict is DiskVerdict.STOP:
            for guard in guards:
                guard.stopped(DiskExhausted(sentence, used_bytes=use.used_bytes,
                                            limit_bytes=watched.limit_bytes))  # fmt: skip
            await self._runtime.stop(watched.name)
            # What runs there next is judged anew, above the limit as it is.
            watched.record = DiskRecord(seen=True, mark=use.used_bytes)
        await asyncio.gather(
            *(guard.tell(sentence, use, watched.limit_bytes) for guard in guards),
            *(guard.interrupt() for guard in guards if verdict is DiskVerdict.INTERRUPT),
        )

    async def _runs(self, watched: _Watched) -> bool:
        """Whether the container runs; if not it is watched no more."""
        watched.renewed = False
        found = await self._runtime.poll(watched.name)
        # One that was made with another data directory is another orchestrator's now.
        if found is not None and found.state is ContainerState.RUNNING and found.made_here:
            return True
        if watched.renewed or watched.guards:  # it was brought up meanwhile, or is to be
            self._postpone(watched)
        else:
            self._watched.pop(watched.name, None)
        return False

    def _postpone(self, watched: _Watched) -> None:
        last = watched.look or DiskLook(0.0, 0.0, 0, None)
        watched.look = replace(last, at=self._clock.monotonic(), free_bytes=None)
