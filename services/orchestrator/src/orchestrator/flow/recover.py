"""Put in order what an orchestrator that was killed has left."""

import structlog

from orchestrator.ports import Engine, TaskStore

log = structlog.get_logger(__name__)


async def recover(tasks: TaskStore, engine: Engine) -> None:
    """See that every unfinished task is queued.

    A crash can fall between a task's record and its place in the queue. Submitting a task again
    that the engine knows changes nothing, also if another orchestrator runs it. What to do about
    containers `flow.adopt` says.
    """
    unfinished = await tasks.unfinished()
    for task in unfinished:
        await engine.submit(task.id, task.workspace.id)
    if unfinished:
        log.warning("unfinished_tasks_taken_up", count=len(unfinished))
