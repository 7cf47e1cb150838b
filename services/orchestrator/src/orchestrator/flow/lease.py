"""The right to use a workspace's container, and the way to get one."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from orchestrator.domain.container import Container, ContainerSpec, Limits
from orchestrator.domain.workspace import CONTAINER_PREFIX, Workspace
from orchestrator.errors import RuntimeFailure, StaleLease, WorkerRefused
from orchestrator.flow.shares import LeaseShares
from orchestrator.ports import Leases, Runtime, TaskStore, Worker, Workers


@dataclass(frozen=True, slots=True)
class Leased:
    """A running container and its claimed worker, under a generation of the lease."""

    container: Container
    worker: Worker
    generation: int


class Lease:
    """Brings up containers for workspaces and remembers which ones this process used."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        workers: Workers,
        tasks: TaskStore,
        limits: Limits,
        leases: Leases,
        shares: LeaseShares,
    ) -> None:
        self._leases = leases
        self._shares = shares
        self._runtime = runtime
        self._workers = workers
        self._tasks = tasks
        self._limits = limits
        self._used: set[str] = set()

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
        await self.confirm(workspace, generation)
        spec = ContainerSpec(workspace.container_name, workspace.id, self._limits)
        key = await self._tasks.worker_key(workspace)
        self._used.add(spec.name)
        container = await self._runtime.ensure(spec)
        try:
            worker = await self._workers.connect(container, key, generation)
        except WorkerRefused:
            # Claimed with a key of another database: a worker that starts anew is unclaimed.
            await self.confirm(workspace, generation)
            await self._runtime.stop(spec.name)
            container = await self._runtime.ensure(spec)
            worker = await self._workers.connect(container, key, generation)
        try:
            yield Leased(container, worker, generation)
        finally:
            await worker.close()

    async def discard(self, workspace: Workspace, generation: int) -> None:
        """Remove a workspace's container and all that lies in it.

        Raises:
            RuntimeFailure: It cannot be removed.
            StaleLease: The lease is not ours any more; the container is left as it is.
        """
        await self.confirm(workspace, generation)
        await self._runtime.remove(workspace.container_name)
        self._used.discard(workspace.container_name)

    async def stop_all(self) -> list[RuntimeFailure]:
        """Stop every container this process used; their work stays. Returns what failed.

        Those that another orchestrator has taken over are left alone.
        """
        failures = []
        for name in sorted(self._used - await self.in_use_elsewhere()):
            try:
                await self._runtime.stop(name)
            except RuntimeFailure as failure:
                failures.append(failure)
        self._used.clear()
        return failures

    async def in_use_elsewhere(self) -> frozenset[str]:
        """Names of the containers that live orchestrators other than this one work in."""
        own = self._shares.believed()
        return frozenset(
            f"{CONTAINER_PREFIX}{lease.workspace_id}"
            for lease in await self._leases.held()
            if own.get(lease.workspace_id) != lease.generation
        )
