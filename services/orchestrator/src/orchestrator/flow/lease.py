"""The right to use a workspace's container, and the way to get one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from orchestrator.domain.container import Container, ContainerSpec, ContainerState, Limits, Reuse
from orchestrator.domain.workspace import CONTAINER_PREFIX, Workspace
from orchestrator.errors import StaleLease, WorkerRefused
from orchestrator.flow.occupancy import Occupancy
from orchestrator.flow.shares import LeaseShares
from orchestrator.ports import Leases, Runtime, TaskStore, Worker, Workers

SOON_SECONDS = 2.0
"""How long a worker that was silent may take for one more answer before it is ended."""

Bind = Callable[[ContainerSpec], Awaitable[bool]]
"""Makes a container from the pool the one of a spec; False if there is none, or no need."""


async def no_pool(_spec: ContainerSpec) -> bool:
    """For a service without a pool."""
    return False


OwnLimits = Callable[[str], Awaitable[Limits]]
"""The limits of a workspace's container, by the workspace's id."""


@dataclass(frozen=True, slots=True)
class Leased:
    """A running container and its claimed worker, under a generation of the lease."""

    container: Container
    worker: Worker
    generation: int


class Lease:
    """Brings up containers for workspaces and remembers which ones this process used.

    Args:
        runtime: Where containers run.
        workers: Connects to what is in them.
        tasks: Has the workers' keys.
        limits: What a container may use, for workspaces without limits of their own.
        own_limits: Tells what the container of a workspace may use; None if all use the same.
        leases: Where leases are recorded.
        shares: Our own leases.
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
        leases: Leases,
        shares: LeaseShares,
        occupancy: Occupancy | None = None,
        bind: Bind = no_pool,
        own_limits: OwnLimits | None = None,
    ) -> None:
        self._runtime = runtime
        self._workers = workers
        self._tasks = tasks
        self.limits = limits
        self._leases = leases
        self._shares = shares
        self._occupancy = occupancy or Occupancy()
        self._bind = bind
        self._own_limits = own_limits
        self._used: set[str] = set()

    @property
    def used(self) -> frozenset[str]:
        """The names of the containers that this process has used and not discarded."""
        return frozenset(self._used)

    def taken(self, workspace: Workspace, task_id: str) -> AbstractAsyncContextManager[int]:
        """The lease on a workspace for a task, while the context lasts; gives its generation.

        Waits while another orchestrator holds it.
        """
        return self._shares.share(workspace.id, task_id)

    async def confirm(self, workspace: Workspace, generation: int) -> None:
        """Make sure that nobody has taken the lease over.

        Raises:
            StaleLease: Somebody has.
        """
        await self._leases.confirm(workspace.id, generation)

    async def lost(self, workspace: Workspace, generation: int) -> frozenset[str]:
        """The tasks here that worked under a lease, if it was taken over.

        The next one then acquires it anew, instead of sharing what is lost.
        """
        try:
            await self.confirm(workspace, generation)
        except StaleLease:
            return self._shares.lose(workspace.id, generation)
        return frozenset()

    @asynccontextmanager
    async def hold(self, workspace: Workspace, generation: int) -> AsyncIterator[Leased]:
        """A worker of this workspace, ready for use while the context lasts.

        Args:
            workspace: The workspace.
            generation: Of the lease, which must be taken.

        Raises:
            RuntimeFailure: No container could be brought up.
            StaleLease: The lease is not ours any more; the container is left as it is.
        """
        name = workspace.container_name
        key = await self._tasks.worker_key(workspace)
        limits = await self._limits_of(workspace)
        async with self._occupancy.at(name) as door:
            await self.confirm(workspace, generation)
            self._used.add(name)
            spec = ContainerSpec(name, workspace.id, limits, in_use=door.in_use)
            container = await self._bring_up(spec)
            worker = await self._connected(spec, container, key, workspace, generation)
            door.users += 1
        try:
            yield Leased(container, worker, generation)
        finally:
            self._occupancy.leave(name)
            await worker.close()

    async def answers(self, container: Container) -> bool:
        """Whether a container's worker answers a health question, in some seconds."""
        return await self._workers.is_healthy(container)

    async def end_hung(self, workspace: Workspace, generation: int, *, ask: bool = True) -> None:
        """End the processes of a container whose worker hangs; `hold` starts it anew.

        It is left as it is if its worker answers by now, or if it does not run: somebody else who
        works in it was quicker.

        Args:
            workspace: Whose container it is.
            generation: Of the lease.
            ask: False to end it even if its worker answers.

        Raises:
            RuntimeFailure: They cannot be ended.
            StaleLease: The lease is not ours any more.
        """
        name = workspace.container_name
        async with self._occupancy.at(name):
            await self.confirm(workspace, generation)
            found = await self._runtime.poll(name)
            if ask and found is not None and await self._answers_soon(found):
                return
            await self._runtime.stop(name)

    async def discard(self, workspace: Workspace, generation: int) -> None:
        """Remove a workspace's container and all that lies in it.

        Raises:
            RuntimeFailure: It cannot be removed.
            StaleLease: The lease is not ours any more; the container is left as it is.
        """
        name = workspace.container_name
        async with self._occupancy.at(name):
            await self.confirm(workspace, generation)
            await self._runtime.remove(name)
        self._used.discard(name)

    async def in_use_elsewhere(self) -> frozenset[str]:
        """Names of the containers that live orchestrators other than this one work in."""
        own = self._shares.believed()
        return frozenset(
            f"{CONTAINER_PREFIX}{lease.workspace_id}"
            for lease in await self._leases.held()
            if own.get(lease.workspace_id) != lease.generation
        )

    async def _answers_soon(self, container: Container) -> bool:
        if container.state is not ContainerState.RUNNING:
            return False
        try:
            async with asyncio.timeout(SOON_SECONDS):
                return await self.answers(container)
        except TimeoutError:
            return False

    async def _limits_of(self, workspace: Workspace) -> Limits:
        return self.limits if self._own_limits is None else await self._own_limits(workspace.id)

    async def _bring_up(self, spec: ContainerSpec) -> Container:
        bound = await self._bind(spec)
        container = await self._runtime.ensure(spec)
        if bound and container.how is Reuse.RESUME:
            return replace(container, how=Reuse.BIND)
        return container

    async def _connected(
        self,
        spec: ContainerSpec,
        container: Container,
        key: str,
        workspace: Workspace,
        generation: int,
    ) -> Worker:
        try:
            return await self._workers.connect(container, key, generation)
        except WorkerRefused:
            # Claimed with a key of another database: a worker that starts anew is unclaimed.
            await self.confirm(workspace, generation)
            await self._runtime.stop(spec.name)
            return await self._workers.connect(await self._runtime.ensure(spec), key, generation)
