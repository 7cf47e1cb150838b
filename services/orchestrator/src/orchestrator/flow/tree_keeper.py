"""See to it that a running task's tree outlives its container."""

from collections.abc import Awaitable, Callable

from orchestrator.domain.task import NewTask
from orchestrator.flow.export import Export, TaskExport
from orchestrator.flow.lease import Leased
from orchestrator.flow.restore import Restore, Restored

FIRST_CALL = 2
"""The least number that the step of a tool call can have: the model speaks first."""

Told = Callable[[Restored], Awaitable[None]]


class TreeKeeper:
    """Brings one task's tree back where it is missing, and out after each change.

    Args:
        task: The task.
        restore: Brings trees back.
        export: Brings them out.
        told: Told when a tree was brought back.
    """

    def __init__(self, task: NewTask, restore: Restore, export: Export, told: Told) -> None:
        self._task = task
        self._restore = restore
        self._export = TaskExport(export, task)
        self._told = told

    async def bring_back(self, leased: Leased, before: int | None) -> None:
        """Have the tree as it is before a step, or at the end of all; see `Restore`.

        Raises:
            WorkLost: It cannot be brought back.
        """
        if before is not None and before <= FIRST_CALL:
            return  # nothing was done before
        restored = await self._restore(self._task, leased.worker, before=before)
        if restored.lost:
            await self._told(restored)

    def changed(self, leased: Leased) -> None:
        """Tell that a call has ended; returns at once."""
        self._export.wake(leased)

    async def finish(self, leased: Leased) -> str:
        """Wait for the last export; returns what the user must know, or nothing."""
        return await self._export.finish(leased)

    async def let_go(self) -> None:
        """Use the container no more."""
        await self._export.stop()
