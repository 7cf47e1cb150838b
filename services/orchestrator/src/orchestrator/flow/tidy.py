"""Keep what is stored of workspaces small, beside the tasks."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from orchestrator.domain.compaction import CompactionLimits
from orchestrator.domain.task import Task
from orchestrator.domain.thinning import ThinningLimits
from orchestrator.errors import BerthError
from orchestrator.flow.preserve import Preserve
from orchestrator.flow.stored import Filling, StoreBundler, origins
from orchestrator.flow.turns import Turns
from orchestrator.ports import CheckpointStore

log = structlog.get_logger(__name__)

TIDY_SECONDS = 120.0
COLLECT_EVERY = 32
"""A workspace's objects are listed after so many of its tasks, since a listing costs most."""


class Tidy:
    """Thins, compacts and collects after a task's end.

    Args:
        preserve: Object storage.
        store: Our own git.
        filling: The way from the one to the other.
        unfinished: Tells which tasks have not ended.
        turns: Nobody else works on what is kept of the workspace meanwhile.
        room: Where bundles lie meanwhile.
        thinning: What old tasks keep.
        compaction: When bundles are put together.
    """

    def __init__(
        self,
        *,
        preserve: Preserve,
        store: CheckpointStore,
        filling: Filling,
        unfinished: Callable[[], Awaitable[Sequence[Task]]],
        turns: Turns,
        room: Path,
        thinning: ThinningLimits | None = None,
        compaction: CompactionLimits | None = None,
    ) -> None:
        self._preserve = preserve
        self._store = store
        self._filling = filling
        self._unfinished = unfinished
        self._turns = turns
        self._room = room
        self._thinning = thinning or ThinningLimits()
        self._compaction = compaction or CompactionLimits()
        self._ended: dict[str, int] = {}
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, task: Task, generation: int) -> None:
        """Tidy a task's workspace some time after its end; returns at once."""
        tidying = asyncio.create_task(self._bounded(task, generation))
        self._running.add(tidying)
        tidying.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """Leave off; the next task's end goes on with it."""
        for each in self._running:
            each.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def __call__(self, task: Task, generation: int) -> None:
        """Tidy the workspace of a task now.

        Raises:
            StaleLease: The lease has been taken over.
            StorageFailure: Storage does not answer.
        """
        workspace_id = task.workspace.id
        async with self._turns.of(workspace_id):
            if await self._preserve.read(workspace_id) is None:
                return
            running = {each.id for each in await self._unfinished()}
            await self._preserve.thin(workspace_id, generation, running, self._thinning)
            await self._compact(task, generation)
            ended = self._ended.get(workspace_id, 0)
            self._ended[workspace_id] = ended + 1
            if ended % COLLECT_EVERY == 0:
                await self._preserve.collect(workspace_id, generation)
            await self._store.shed(workspace_id, is_over=task.workspace.is_scratch)

    async def _compact(self, task: Task, generation: int) -> None:
        known = origins(task.workspace, task.start)
        bundler = StoreBundler(self._filling, self._preserve, self._store, known)
        with tempfile.TemporaryDirectory(dir=self._room) as directory:
            for _ in known:
                await self._preserve.compact(
                    task.workspace.id, generation, bundler, Path(directory), self._compaction
                )

    async def _bounded(self, task: Task, generation: int) -> None:
        try:
            async with asyncio.timeout(TIDY_SECONDS):
                await self(task, generation)
        except (BerthError, OSError) as error:  # a full disk of ours, or the time is over
            # What is not tidied now is tidied after the next task.
            log.warning("not_tidied", workspace=task.workspace.id, error=type(error).__name__)
