"""The tasks that run in this process."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from orchestrator.domain.task import NewTask, Task


class RunningTasks:
    """Runs tasks beside the requests that asked for them.

    A caller that goes away does not end its task.
    """

    def __init__(self, run: Callable[[NewTask], Coroutine[Any, Any, Task]]) -> None:
        self._run = run
        self._running: dict[str, asyncio.Task[Task]] = {}

    def start(self, task: NewTask) -> "asyncio.Task[Task]":
        """Begin to run a task; await the result through `asyncio.shield`."""
        running = asyncio.create_task(self._run(task), name=f"task {task.id}")
        self._running[task.id] = running
        running.add_done_callback(lambda _: self._running.pop(task.id, None))
        return running

    async def cancel_all(self) -> None:
        """Cancel every task and wait until its ending is recorded.

        What goes wrong with an ending is raised to whoever awaits that task, else logged by
        asyncio.
        """
        # A task that was cancelled before its first step could not record anything.
        await asyncio.sleep(0)
        running = list(self._running.values())
        for each in running:
            each.cancel()
        if running:
            await asyncio.wait(running)
