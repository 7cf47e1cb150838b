"""A task's hold on its container: taken, and taken anew when the container dies."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar

import structlog

from orchestrator.domain.container import Container
from orchestrator.domain.conversation import ToolResult, ToolSpec
from orchestrator.domain.task import NewTask, Patch
from orchestrator.errors import StaleLease, WorkerRefused, WorkerUnreachable
from orchestrator.flow.lease import Lease, Leased
from orchestrator.flow.supply import Supply
from orchestrator.ports import Admission, PreparedTask, Progress, Worker

log = structlog.get_logger(__name__)

T = TypeVar("T")
REVIVALS = 3
"""How often one request may find its container dead before the task fails."""

Prepared = Callable[[Leased, PreparedTask], Awaitable[None]]
Admit = Callable[[Container], AbstractAsyncContextManager[Admission]]
"""Opens the way out of a container for the task."""


class Hands:
    """`ports.Toolbox` on whatever container the task's workspace has at the moment.

    Args:
        task: The task.
        generation: Of the lease that the task runs under.
        lease: Brings up containers.
        supply: Makes the task's tree in one.
        prepared: Told each time the tree stands in a container.
        admit: Lets the task out of it.
    """

    def __init__(
        self,
        task: NewTask,
        generation: int,
        lease: Lease,
        supply: Supply,
        prepared: Prepared,
        *,
        admit: Admit,
    ) -> None:
        self._task = task
        self._generation = generation
        self._lease = lease
        self._supply = supply
        self._admit = admit
        self._prepared = prepared
        self._admission: Admission | None = None
        self._holding = AsyncExitStack()
        self._worker: Worker | None = None

    async def __aenter__(self) -> Self:
        """Take hold of the container, with the task's tree in it."""
        try:
            await self._with_worker(_nothing)
        except BaseException:
            await self._let_go()  # whoever cannot enter does not exit
            raise
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

        result = await self._with_worker(called)
        refusals = self._refusals()
        if not refusals:
            return result
        # Many a program hides from its user what a proxy has told it.
        told = "\n".join(f"[The network: {sentence}]" for sentence in refusals)
        return replace(result, text=f"{result.text}\n{told}")

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
            self._admission = await self._holding.enter_async_context(self._admit(leased.container))
            if self._admission.egress_pass is not None:
                await leased.worker.let_out(self._task.id, self._admission.egress_pass)
            tree = await self._supply(self._task, leased.worker)
            told = (*tree.dependencies, *self._refusals())
            await self._prepared(leased, PreparedTask(told))
            self._worker = leased.worker
        return self._worker

    def _refusals(self) -> tuple[str, ...]:
        return () if self._admission is None else self._admission.take_refusals()

    async def _let_go(self) -> None:
        self._worker = None
        await self._holding.aclose()


async def _nothing(_worker: Worker) -> None:
    return None
