"""Give a task the tree it has from an earlier one."""

from orchestrator.domain.lineage import Lineage, Relation
from orchestrator.domain.task import NewTask, Task
from orchestrator.errors import TreeGone
from orchestrator.flow.past_tree import require_past_tree
from orchestrator.ports import PreparedTask, TaskStore, Worker


class Inherit:
    """Has workers hand on or fork the trees of earlier tasks."""

    def __init__(self, tasks: TaskStore) -> None:
        self._tasks = tasks

    async def __call__(self, task: NewTask, lineage: Lineage, worker: Worker) -> PreparedTask:
        """Make the tree of a task that builds on another.

        Raises:
            TreeGone: The worker has not the tree of the other.
        """
        parent = await self._tasks.get(lineage.parent)
        if lineage.relation is Relation.FORKS:
            await require_past_tree(parent, worker)
            return await worker.fork_tree(task.id, parent.id, lineage.step or 0)
        holder = await self._holder(parent, worker)
        return await worker.continue_tree(task.id, holder.id, task.files)

    async def _holder(self, parent: Task, worker: Worker) -> Task:
        """Whose tree it is: a continuation that failed before it had the tree never took it."""
        task = parent
        while True:
            try:
                await require_past_tree(task, worker)
            except TreeGone:
                lineage = task.lineage
                if lineage is None or lineage.relation is not Relation.CONTINUES:
                    raise
                task = await self._tasks.get(lineage.parent)
            else:
                return task
