"""The right to use a workspace's container, and the way to get one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from orchestrator.domain.container import Container, ContainerSpec, Limits, Reuse
from orchestrator.domain.workspace import Workspace
from orchestrator.errors import WorkerRefused
from orchestrator.flow.occupancy import Occupancy
from orchestrator.ports import Runtime, TaskStore, Worker, Workers

Bind = Callable[[ContainerSpec], Awaitable[bool]]
"""Makes a container from the pool the one of a spec; False if there is none, or no need."""


async def no_pool(_spec: ContainerSpec) -> bool:
    """For a service without a pool."""
    return False


@dataclass(frozen=True, slots=True)
class Leased:
    """A running container and its claimed worker."""

    container: Container
    worker: Worker


class Lease:
    """Brings up containers for workspaces and remembers which ones this process used.

    Args:
        runtime: Where containers run.
        workers: Connects to what is in them.
        tasks: Has the workers' keys.
        limits: What a container may use.
        occupancy: Keeps the reaper away from what is in use.
        bind: Takes containers from the pool.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        workers: Workers,
        tasks: TaskStore,
        limits: Limits,
        occupancy: Occupancy | None = None,
        bind: Bind = no_pool,
    ) -> None:
        self._runtime = runtime
        self._workers = workers
        self._tasks = tasks
        self.limits = limits
        self._occupancy = occupancy or Occupancy()
        self._bind = bind
        self._used: set[str] = set()

    @property
    def used(self) -> frozenset[str]:
        """The names of the containers that this process has used and not discarded."""
        return frozenset(self._used)

    @asynccontextmanager
    async def hold(self, workspace: Workspace) -> AsyncIterator[Leased]:
        """A worker of this workspace, ready for use while the context lasts.

        Raises:
            RuntimeFailure: No container could be brought up.
        """
        name = workspace.container_name
        key = await self._tasks.worker_key(workspace)
        self._used.add(name)
        async with self._occupancy.at(name) as door:
            spec = ContainerSpec(name, workspace.id, self.limits, in_use=door.in_use)
            leased = await self._bring_up(spec, key)
            door.users += 1
        try:
            yield leased
        finally:
            self._occupancy.leave(name)
            await leased.worker.close()

    async def discard(self, workspace: Workspace) -> None:
        """Remove a workspace's container and all that lies in it."""
        name = workspace.container_name
        async with self._occupancy.at(name):
            await self._runtime.remove(name)
        self._used.discard(name)

    async def _bring_up(self, spec: ContainerSpec, key: str) -> Leased:
        bound = await self._bind(spec)
        container = await self._runtime.ensure(spec)
        if bound and container.how is Reuse.RESUME:
            container = replace(container, how=Reuse.BIND)
        try:
            worker = await self._workers.connect(container, key)
        except WorkerRefused:
            # Claimed with a key of another database: a worker that starts anew is unclaimed.
            await self._runtime.stop(spec.name)
            container = await self._runtime.ensure(spec)
            worker = await self._workers.connect(container, key)
        return Leased(container, worker)
