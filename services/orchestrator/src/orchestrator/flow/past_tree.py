"""The tree of a task that may have ended long ago."""

from orchestrator.domain.task import NewTask, Task
from orchestrator.errors import TreeGone
from orchestrator.flow.restore import Restore
from orchestrator.ports import Worker


def refuse_scratch(task: Task) -> None:
    """Refuse to build on a task whose container goes with it.

    Raises:
        TreeGone: The task has no repository.
    """
    if task.workspace.is_scratch:
        raise TreeGone(
            f"Task {task.id} has no repository: its container is removed when it ends. Its record "
            "and its patch are kept; begin a new task with the patch as a file.",
            task_id=task.id,
        )


async def require_past_tree(task: Task, worker: Worker, restore: Restore) -> None:
    """See that a worker has the tree of a task, before anything is done with it.

    Every flow that touches the tree of a task that has ended comes by here.

    Raises:
        TreeGone: It is neither in the container nor whole in object storage.
        CheckpointsUnusable: It is not in the container, and object storage cannot give it.
    """
    if task.ending is None:
        await worker.require_tree(task.id)  # whoever runs the task sees to it
    else:
        await restore.ended(_as_it_was(task), worker)


def _as_it_was(task: Task) -> NewTask:
    return NewTask(
        id=task.id,
        query=task.query,
        workspace=task.workspace,
        start=task.start,
        files=(),  # gone from storage since its end
        budget=task.budget,
        lineage=task.lineage,
    )
