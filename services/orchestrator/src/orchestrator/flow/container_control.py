"""What callers do with containers: look at them, stop them, remove them."""

import re
from collections.abc import Sequence

from orchestrator.domain.container import Container
from orchestrator.domain.task import TaskFilter, TaskStatus
from orchestrator.domain.workspace import CONTAINER_PREFIX, ID_LENGTH
from orchestrator.errors import ContainerBusy, ContainerNotFound
from orchestrator.flow.occupancy import Occupancy
from orchestrator.ports import Runtime, TaskStore

NAME = re.compile(rf"{CONTAINER_PREFIX}[0-9a-f]{{{ID_LENGTH}}}")
MAX_NAME_SHOWN = 80


class ContainerControl:
    """Acts on containers at their doors, so that none is stopped while it is brought up.

    Args:
        runtime: Where they run.
        tasks: Tells which tasks work in them, here or elsewhere.
        occupancy: Their doors.
    """

    def __init__(self, runtime: Runtime, tasks: TaskStore, occupancy: Occupancy) -> None:
        self._runtime = runtime
        self._tasks = tasks
        self._occupancy = occupancy

    async def list(self) -> Sequence[Container]:
        """All containers, in any state, sorted by name."""
        return await self._runtime.list()

    async def logs(self, name: str, lines: int) -> str:
        """The last lines that a container's worker wrote.

        Raises:
            ContainerNotFound: There is no such container.
        """
        await self._require(name)
        return await self._runtime.logs(name, lines)

    async def stop(self, name: str) -> None:
        """End a container's processes; a task that works in it starts it again and goes on.

        Raises:
            ContainerNotFound: There is no such container.
        """
        await self._require(name)
        async with self._occupancy.at(name):
            await self._runtime.stop(name)

    async def remove(self, name: str) -> None:
        """Delete a container and the trees in it.

        Raises:
            ContainerNotFound: There is no such container.
            ContainerBusy: A task works in it.
        """
        await self._require(name)
        async with self._occupancy.at(name):
            await self._require_idle(name)
            await self._runtime.remove(name)

    async def _require(self, name: str) -> None:
        # A name of another form must not get as far as a runtime, which makes paths of names.
        if not NAME.fullmatch(name) or await self._runtime.poll(name) is None:
            shown = name[:MAX_NAME_SHOWN]
            raise ContainerNotFound(
                f"There is no container {shown!r}: GET /containers lists them.", container=shown
            )

    async def _require_idle(self, name: str) -> None:
        workspace_id = name.removeprefix(CONTAINER_PREFIX)
        running = TaskFilter(status=TaskStatus.RUNNING, workspace_id=workspace_id, limit=1)
        for task in await self._tasks.list(running):
            raise ContainerBusy(
                f"Task {task.id} works in {name}: wait for its end, or cancel it with "
                f"POST /tasks/{task.id}/cancel.",
                container=name,
                task_id=task.id,
            )
