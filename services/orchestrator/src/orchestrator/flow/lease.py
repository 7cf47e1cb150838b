"""The right to use a workspace's container, and the way to get one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orchestrator.domain.container import Container, ContainerSpec, Limits
from orchestrator.domain.workspace import Workspace
from orchestrator.errors import RuntimeFailure, WorkerRefused
from orchestrator.ports import Runtime, TaskStore, Worker, Workers


@dataclass(frozen=True, slots=True)
class Leased:
    """A running container and its claimed worker.

    `generation` rises with each new holder of the lease.
    """

    container: Container
    worker: Worker
    generation: int = 1


class Lease:
    """Brings up containers for workspaces and remembers which ones this process used."""

    def __init__(
        self, *, runtime: Runtime, workers: Workers, tasks: TaskStore, limits: Limits
    ) -> None:
        self._runtime = runtime
        self._workers = workers
        self._tasks = tasks
        self._limits = limits
        self._used: set[str] = set()

    @asynccontextmanager
    async def hold(self, workspace: Workspace) -> AsyncIterator[Leased]:
        """A worker of this workspace, ready for use while the context lasts.

        Raises:
            RuntimeFailure: No container could be brought up.
        """
        spec = ContainerSpec(workspace.container_name, workspace.id, self._limits)
        key = await self._tasks.worker_key(workspace)
        self._used.add(spec.name)
        container = await self._runtime.ensure(spec)
        try:
            worker = await self._workers.connect(container, key)
        except WorkerRefused:
            # Claimed with a key of another database: a worker that starts anew is unclaimed.
            await self._runtime.stop(spec.name)
            container = await self._runtime.ensure(spec)
            worker = await self._workers.connect(container, key)
        try:
            yield Leased(container, worker)
        finally:
            await worker.close()

    async def discard(self, workspace: Workspace) -> None:
        """Remove a workspace's container and all that lies in it."""
        await self._runtime.remove(workspace.container_name)
        self._used.discard(workspace.container_name)

    async def stop_all(self) -> list[RuntimeFailure]:
        """Stop every container this process used; their work stays. Returns what failed."""
        failures = []
        for name in sorted(self._used):
            try:
                await self._runtime.stop(name)
            except RuntimeFailure as failure:
                failures.append(failure)
        self._used.clear()
        return failures
