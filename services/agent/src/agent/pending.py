"""Checkpoints that are made after their calls were answered.

Nobody waits for one but the next call that may change something: it begins when the checkpoint
before it stands. So whenever a call is broken off there is a state to go back to. A worker that
ends between an answer and its checkpoint leaves the tree as the call has left it; the next worker
learns from the journal that the checkpoint is missing and makes it first.
"""

import asyncio
import logging

from agent.checkpoints import Checkpoints
from agent.errors import WorkerError
from agent.journal import Call, Journal
from agent.layout import Layout
from agent.leftovers import end_leftovers

log = logging.getLogger(__name__)


class PendingCheckpoints:
    """Makes checkpoints one after another in each task, and knows when they stand.

    Args:
        layout: Where things lie.
        journal: Tells which calls have ended.
        checkpoints: Keeps the trees.
    """

    def __init__(self, layout: Layout, journal: Journal, checkpoints: Checkpoints) -> None:
        self._layout = layout
        self._journal = journal
        self._checkpoints = checkpoints
        self._being_made: dict[str, asyncio.Task[None]] = {}
        self._complete: set[str] = set()

    def start(self, call: Call) -> None:
        """Make the checkpoint of what a call has left; it has ended, and `settled` came before."""
        making = asyncio.create_task(self._make(call.task, call.key))
        self._being_made[call.task] = making
        making.add_done_callback(lambda _: self._forget(call.task, making))

    async def settled(self, task_id: str) -> str:
        """Wait until every ended call has its checkpoint; returns the key of the newest.

        Raises:
            StorageFailed: What is known of the task's checkpoints is damaged.
            UnknownTask: The task has no tree.
            WorkerError: What a call of a dead worker has left running does not end.
        """
        making = self._being_made.get(task_id)
        if making is not None:
            await asyncio.shield(making)
        newest = await self._checkpoints.begin(task_id)
        if task_id not in self._complete:
            missing = await asyncio.to_thread(self._journal.ended_since, task_id, newest)
            if missing is not None:
                await end_leftovers(self._layout.task(task_id))
                await self._make(task_id, missing)
                newest = missing
            self._complete.add(task_id)
        return newest

    async def close(self, seconds: float) -> None:
        """Wait a while for those being made; what is not made then, the next worker makes."""
        if self._being_made:
            await asyncio.wait(self._being_made.values(), timeout=seconds)

    async def _make(self, task_id: str, key: str) -> None:
        try:
            await self._checkpoints.add(task_id, key)
        except (WorkerError, OSError) as error:
            # The call has had its effect: its result counts. What cannot be is to go back here.
            log.exception("task %s: no checkpoint after call %s", task_id, key)
            await self._checkpoints.give_up(task_id, key, str(error))

    def _forget(self, task_id: str, making: "asyncio.Task[None]") -> None:
        if self._being_made.get(task_id) is making:
            del self._being_made[task_id]
