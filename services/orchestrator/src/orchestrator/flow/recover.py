"""Put in order what an orchestrator that was killed has left."""

import structlog

from orchestrator.ports import Runtime, TaskStore

log = structlog.get_logger(__name__)

CODE = "orchestrator_restarted"
DETAIL = "The service was restarted while this task ran, so it has no result: send it again."


async def recover(tasks: TaskStore, runtime: Runtime) -> None:
    """Fail the tasks that were running and remove the scratch containers they ran in.

    Containers of repositories stay: the next task reuses them. Call it before any task runs.

    Raises:
        RuntimeFailure: A scratch container cannot be removed.
    """
    left = await tasks.fail_unfinished(CODE, DETAIL)
    if left:
        log.warning("unfinished_tasks_failed", count=left)
    scratch = {
        each.workspace.container_name
        for each in await tasks.workspaces()
        if each.workspace.is_scratch
    }
    for container in await runtime.list():
        if container.name in scratch:
            await runtime.remove(container.name)
            log.warning("scratch_container_removed", container=container.name)
