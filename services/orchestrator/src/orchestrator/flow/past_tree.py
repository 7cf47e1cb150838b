"""The tree of a task that may have ended long ago."""

from orchestrator.domain.task import Task
from orchestrator.errors import TreeGone
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


async def require_past_tree(task: Task, worker: Worker) -> None:
    """See that a worker has the tree of a task, before anything is done with it.

    Every flow that touches the tree of a task that has ended comes by here.

    Raises:
        TreeGone: The container or its volume was removed since.
    """
    await worker.require_tree(task.id)
