"""The tasks that are at work in this process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager


class RunningTasks:
    """Knows which asyncio task works on which task, so that it can be cancelled.

    There are three cancellations: one task's, which ends it; the process's own end, after which
    its tasks go on in the next process; and a task's that another orchestrator goes on with.

    A task may be here twice for a moment: when it is taken over and comes back before its first run
    has left.
    """

    def __init__(self) -> None:
        self._running: dict[str, list[asyncio.Task[object]]] = {}
        self._cancelled: set[asyncio.Task[object]] = set()
        self._abandoned: set[asyncio.Task[object]] = set()
        self._stopping = asyncio.Event()

    @property
    def stopping(self) -> asyncio.Event:
        """Set once this process is about to end."""
        return self._stopping

    @contextmanager
    def entered(self, task_id: str) -> Iterator[None]:
        """The current asyncio task works on a task while the context lasts."""
        current = asyncio.current_task()
        if current is None:
            raise RuntimeError("tasks run inside asyncio tasks")
        runs = self._running.setdefault(task_id, [])
        runs.append(current)
        try:
            yield
        finally:
            runs.remove(current)
            if not runs:
                del self._running[task_id]
            self._cancelled.discard(current)
            self._abandoned.discard(current)

    def cancel(self, task_id: str) -> bool:
        """Interrupt one task, which then records its ending; False if it is not at work here.

        Asked for again it does nothing: the ending itself is not interrupted.
        """
        runs = self._running.get(task_id, ())
        for run in runs:
            if run not in self._cancelled:
                self._cancelled.add(run)
                run.cancel()
        return bool(runs)

    def abandon(self, task_id: str) -> None:
        """Interrupt one task where it stands, without an ending: it goes on elsewhere."""
        for run in self._running.get(task_id, ()):
            self._abandoned.add(run)
            run.cancel()

    def abandon_all(self) -> None:
        """Abandon every task that is here."""
        for task_id in list(self._running):
            self.abandon(task_id)

    @property
    def is_abandoned(self) -> bool:
        """True in a task that was abandoned."""
        return asyncio.current_task() in self._abandoned

    @property
    def is_leaving(self) -> bool:
        """True in a task whose cancellation is no ending: it was abandoned, or we stop."""
        return self._stopping.is_set() or self.is_abandoned

    async def heed(self, cancels: AsyncIterator[str]) -> None:
        """Cancel what is asked for, as long as it runs."""
        async for task_id in cancels:
            self.cancel(task_id)

    async def stop(self) -> None:
        """Interrupt every task where it stands, without an ending, and wait until all have left."""
        self._stopping.set()
        running = [run for runs in self._running.values() for run in runs]
        for each in running:
            each.cancel()
        if running:
            await asyncio.wait(running)
