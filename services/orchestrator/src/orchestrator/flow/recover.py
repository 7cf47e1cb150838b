"""Put in order what an orchestrator that was killed has left."""

import structlog

from orchestrator.ports import Engine, Runtime, TaskStore

log = structlog.get_logger(__name__)


async def recover(tasks: TaskStore, engine: Engine, runtime: Runtime) -> None:
    """See that every unfinished task is queued, and remove scratch containers nobody uses.

    A crash can fall between a task's record and its place in the queue. Submitting a task again
    that the engine knows changes nothing, also if another orchestrator runs it.

    Raises:
        RuntimeFailure: A scratch container cannot be removed.
    """
    # Looked at before the tasks are: a container that appears later belongs to a task of another
    # orchestrator that may have been accepted meanwhile.
    containers = await runtime.list()
    scratch = {
        each.workspace.container_name
        for each in await tasks.workspaces()
        if each.workspace.is_scratch
    }
    unfinished = await tasks.unfinished()
    for task in unfinished:
        await engine.submit(task.id, task.workspace.id)
    if unfinished:
        log.warning("unfinished_tasks_taken_up", count=len(unfinished))
    in_use = {task.workspace.container_name for task in unfinished}
    for container in containers:
        if container.name in scratch - in_use:
            await runtime.remove(container.name)
            log.warning("scratch_container_removed", container=container.name)
