"""The tasks that are at work in this process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager


class RunningTasks:
    """Knows which asyncio task works on which task, so that it can be cancelled.

    There are two cancellations: one task's, which ends it, and the process's own end, after which
    its tasks go on in the next process.
    """

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[object]] = {}
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
        self._running[task_id] = current
        try:
            yield
        finally:
            del self._running[task_id]

    def cancel(self, task_id: str) -> bool:
        """Interrupt one task, which then records its ending; False if it is not at work here."""
        running = self._running.get(task_id)
        return running is not None and running.cancel()

    async def heed(self, cancels: AsyncIterator[str]) -> None:
        """Cancel what is asked for, as long as it runs."""
        async for task_id in cancels:
            self.cancel(task_id)

    async def stop(self) -> None:
        """Interrupt every task where it stands, without an ending, and wait until all have left."""
        self._stopping.set()
        running = list(self._running.values())
        for each in running:
            each.cancel()
        if running:
            await asyncio.wait(running)
