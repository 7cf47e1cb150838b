"""What a task changed between two of its steps."""

import secrets

from orchestrator.domain.task import Patch
from orchestrator.errors import InvalidRequest
from orchestrator.flow.fork import require_step
from orchestrator.flow.lease import Lease
from orchestrator.flow.past_tree import refuse_scratch, require_past_tree
from orchestrator.ports import TaskStore


class Compare:
    """Reads differences from checkpoints; wakes the task's container if need be."""

    def __init__(self, tasks: TaskStore, lease: Lease) -> None:
        self._tasks = tasks
        self._lease = lease

    async def __call__(self, task_id: str, start: int, end: int | None) -> Patch:
        """The patch from the tree after a step to that after another.

        Args:
            task_id: The task, running or ended.
            start: The first step; 0 for the tree that the task began with.
            end: The other step; None for the last one.

        Raises:
            TaskNotFound: There is no such task.
            UnknownStep: The task has not completed one of the steps.
            InvalidRequest: The first step comes after the other.
            TreeGone: The tree is no longer there.
            RuntimeFailure: The container does not come up.
        """
        task = await self._tasks.get(task_id)
        if end is not None and start > end:
            raise InvalidRequest(
                f"from is step {start} and to is step {end}: give the earlier one as from.",
                field="from",
            )
        await require_step(self._tasks, task, start if end is None else end)
        if task.ending is not None:
            refuse_scratch(task)
        if start == end or await self._tasks.last_step(task.id) == 0:
            return Patch()
        user = f"diff-{secrets.token_hex(8)}"  # the task itself may be using the lease too
        async with (
            self._lease.taken(task.workspace, user) as generation,
            self._lease.hold(task.workspace, generation) as leased,
        ):
            await require_past_tree(task, leased.worker)
            return await leased.worker.difference(task.id, start, end)
