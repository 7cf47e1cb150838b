"""A task's hold on its container: taken, and taken anew when the container dies."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, TypeVar

import structlog

from orchestrator.domain.conversation import ToolResult, ToolSpec
from orchestrator.domain.task import NewTask, Patch
from orchestrator.errors import StaleLease, WorkerRefused, WorkerUnreachable
from orchestrator.flow.lease import Lease, Leased
from orchestrator.flow.supply import Supply
from orchestrator.ports import PreparedTask, Progress, Worker

log = structlog.get_logger(__name__)

T = TypeVar("T")
REVIVALS = 3
"""How often one request may find its container dead before the task fails."""

Prepared = Callable[[Leased, PreparedTask], Awaitable[None]]


class Hands:
    """`ports.Toolbox` on whatever container the task's workspace has at the moment.

    Args:
        task: The task.
        generation: Of the lease that the task runs under.
        lease: Brings up containers.
        supply: Makes the task's tree in one.
        prepared: Told each time the tree stands in a container.
    """

    def __init__(
        self, task: NewTask, generation: int, lease: Lease, supply: Supply, prepared: Prepared
    ) -> None:
        self._task = task
        self._generation = generation
        self._lease = lease
        self._supply = supply
        self._prepared = prepared
        self._holding = AsyncExitStack()
        self._worker: Worker | None = None

    async def __aenter__(self) -> Self:
        """Take hold of the container, with the task's tree in it."""
        await self._with_worker(_nothing)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Let go of the container."""
        await self._let_go()

    async def tools(self) -> Sequence[ToolSpec]:
        """The worker's tools."""

        async def listed(worker: Worker) -> Sequence[ToolSpec]:
            async with worker.toolbox(self._task.id) as toolbox:
                return await toolbox.tools()

        return await self._with_worker(listed)

    async def call(
        self,
        name: str,
        arguments: dict[str, object],
        *,
        key: str = "",
        progress: Progress | None = None,
    ) -> ToolResult:
        """Call a tool; in a container that took another's place it is the same call by its key."""

        async def called(worker: Worker) -> ToolResult:
            async with worker.toolbox(self._task.id) as toolbox:
                return await toolbox.call(name, arguments, key=key, progress=progress)

        return await self._with_worker(called)

    async def keep_output(self, task_id: str, name: str, text: str) -> str:
        """Keep a long tool output in the task's tree; returns the path the model can read."""
        return await self._with_worker(lambda worker: worker.keep_output(task_id, name, text))

    async def interrupt(self) -> None:
        """End what tools still do: a call with a key goes on when we no longer wait for it."""
        await self._with_worker(lambda worker: worker.interrupt(self._task.id))

    async def patch(self) -> Patch:
        """What the task has changed so far."""
        return await self._with_worker(lambda worker: worker.patch(self._task.id))

    async def _with_worker(self, work: Callable[[Worker], Awaitable[T]]) -> T:
        for attempt in range(1, REVIVALS + 1):
            try:
                return await work(await self._held())
            except WorkerUnreachable as lost:
                await self._let_go()
                if attempt == REVIVALS:
                    raise
                log.warning("worker_lost", task=self._task.id, detail=lost.detail)
            except StaleLease as stale:
                # What runs in the container could have made the worker say so.
                await self._lease.confirm(self._task.workspace, self._generation)
                raise WorkerRefused(
                    f"The worker of {self._task.workspace.container_name} refuses a lease that is "
                    "in force. Remove its container with DELETE /containers/"
                    f"{self._task.workspace.container_name} and send the task again."
                ) from stale
        raise RuntimeError("the loop returns or raises")

    async def _held(self) -> Worker:
        if self._worker is None:
            holding = self._lease.hold(self._task.workspace, self._generation)
            leased = await self._holding.enter_async_context(holding)
            await self._prepared(leased, await self._supply(self._task, leased.worker))
            self._worker = leased.worker
        return self._worker

    async def _let_go(self) -> None:
        self._worker = None
        await self._holding.aclose()


async def _nothing(_worker: Worker) -> None:
    return None
