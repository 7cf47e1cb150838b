"""A task's hold on its container: taken, and taken anew when the container dies."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar

import structlog

from orchestrator.domain.container import Container
from orchestrator.domain.conversation import ToolResult, ToolSpec
from orchestrator.domain.task import NewTask, Patch
from orchestrator.errors import (
    StaleLease,
    TreeGone,
    WorkerHangs,
    WorkerRefused,
    WorkerUnreachable,
)
from orchestrator.flow.disk import DiskGuard
from orchestrator.flow.lease import Lease, Leased
from orchestrator.flow.pulse import PATIENT, Patience, answering
from orchestrator.flow.supply import Supply
from orchestrator.flow.tree_keeper import TreeKeeper
from orchestrator.ports import Admission, PreparedTask, Progress, Worker

log = structlog.get_logger(__name__)

T = TypeVar("T")
REVIVALS = 3
"""How often one request may find its container dead before the task fails."""

IMPATIENT = Patience(every_seconds=0.5, hang_seconds=5.0, questions=1)
"""For a worker that is to leave off: there is not much to lose in it."""
OBEY_SECONDS = 8.0
"""How long a worker that answers may take to end what tools do."""

Prepared = Callable[[Leased, PreparedTask], Awaitable[None]]
Admit = Callable[[Container], AbstractAsyncContextManager[Admission]]
"""Opens the way out of a container for the task."""
Watch = Callable[[Leased], AbstractAsyncContextManager[DiskGuard]]
"""Has the container's disk watched for the task."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a tool."""

    name: str
    arguments: dict[str, object]
    key: str

    @property
    def before(self) -> int | None:
        """The step before which the tree is to be as it was; None if its key is no step."""
        return int(self.key) if self.key.isdigit() else None


class Hands:
    """`ports.Toolbox` on whatever container the task's workspace has at the moment.

    Args:
        task: The task.
        generation: Of the lease that the task runs under.
        lease: Brings up containers.
        supply: Makes the task's tree in one.
        prepared: Told each time the tree stands in a container.
        keeper: Brings the tree back where it is missing, and its changes out.
        admit: Lets the task out of it.
        watch: Watches its disk; None if nobody does.
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
        keeper: TreeKeeper | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._task = task
        self._generation = generation
        self._lease = lease
        self._supply = supply
        self._admit = admit
        self._prepared = prepared
        self._admission: Admission | None = None
        self._watch = watch
        self._guard: DiskGuard | None = None
        self._holding = AsyncExitStack()
        self._keeper = keeper
        self._held: Leased | None = None
        self._leased: Leased | None = None
        self._is_whole = False
        self._latest: _Call | None = None
        self._has_latest = False

    async def __aenter__(self) -> Self:
        """Take hold of the container, with the task's tree in it."""
        try:
            await self._with_worker(_nothing, before=0)
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

        return await self._with_worker(listed, before=0)

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

        latest = _Call(name, arguments, key)
        result = await self._with_worker(called, before=latest.before)
        self._latest, self._has_latest = latest, True
        if self._keeper is not None and self._leased is not None:
            self._keeper.changed(self._leased)
        # Many a program hides from its user what a proxy has told it.
        told = [f"[The network: {sentence}]" for sentence in self._refusals()]
        overfull = "" if self._guard is None else self._guard.take_sentence()
        if overfull:
            told.append(f"[The disk: {overfull}]")
        return replace(result, text="\n".join([result.text, *told])) if told else result

    async def keep_output(self, task_id: str, name: str, text: str) -> str:
        """Keep a long tool output in the task's tree; returns the path the model can read."""

        async def kept(worker: Worker) -> str:
            await self._latest_again(worker)
            return await worker.keep_output(task_id, name, text)

        before = None if self._latest is None else self._latest.before
        return await self._with_worker(kept, before=before)

    async def interrupt(self) -> None:
        """End what tools still do: a call with a key goes on when we no longer wait for it.

        A worker that does not obey is ended itself, and another takes its place.
        """
        try:
            await self._with_worker(self._interrupted, patience=IMPATIENT)
        except TimeoutError:
            await self._let_go()
            await self._end_hung(ask=False)
            # What is to be read now is read from a worker that runs nothing.
            await self._with_worker(_nothing)

    async def _interrupted(self, worker: Worker) -> None:
        async with asyncio.timeout(OBEY_SECONDS):
            await worker.interrupt(self._task.id)

    async def patch(self) -> Patch:
        """What the task has changed so far."""
        return await self._with_worker(lambda worker: worker.patch(self._task.id))

    async def preserved(self) -> str:
        """Wait until all changes are brought out; returns what the user must know, or nothing."""
        if self._keeper is None or self._leased is None:
            return ""
        return await self._keeper.finish(self._leased)

    async def _with_worker(
        self,
        work: Callable[[Worker], Awaitable[T]],
        before: int | None = None,
        patience: Patience = PATIENT,
    ) -> T:
        """Work with a worker whose tree is as it was before a step, or at the end of all.

        Before step 0 the tree does not matter.
        """
        for attempt in range(1, REVIVALS + 1):
            try:
                leased = await self._hold()
                async with answering(leased.container, self._lease.answers, patience):
                    await self._ready(leased, before)
                    with _lost_on_the_way():
                        return await work(leased.worker)
            except WorkerUnreachable as lost:
                await self._let_go()
                if isinstance(lost, WorkerHangs):
                    await self._end_hung()
                self._require_disk()
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

    async def _latest_again(self, worker: Worker) -> None:
        """Make the latest call again in a container that took another's place.

        It is not completed as long as its output is not kept, so nobody else brings it back.
        """
        if self._latest is not None and not self._has_latest:
            latest = self._latest
            async with worker.toolbox(self._task.id) as toolbox:
                await toolbox.call(latest.name, latest.arguments, key=latest.key)
            self._has_latest = True

    async def _hold(self) -> Leased:
        """Take hold of the container, unless we have it."""
        if self._held is None:
            holding = self._lease.hold(self._task.workspace, self._generation)
            self._held = await self._holding.enter_async_context(holding)
        return self._held

    async def _ready(self, leased: Leased, before: int | None) -> None:
        """Have the task's tree in the container that we hold."""
        if self._leased is None:
            if self._watch is not None:
                self._guard = await self._holding.enter_async_context(self._watch(leased))
            self._admission = await self._holding.enter_async_context(self._admit(leased.container))
            if self._admission.egress_pass is not None:
                await leased.worker.let_out(self._task.id, self._admission.egress_pass)
            tree = await self._supply(self._task, leased.worker)
            told = (*tree.dependencies, *self._refusals())
            await self._prepared(leased, replace(tree, dependencies=told))
            self._leased = leased
        if before != 0 and not self._is_whole:
            # Not sooner: only now all steps before this one are known to be completed.
            if self._keeper is not None:
                await self._keeper.bring_back(leased, before)
            self._is_whole = True

    async def _end_hung(self, *, ask: bool = True) -> None:
        await self._lease.end_hung(self._task.workspace, self._generation, ask=ask)

    def _require_disk(self) -> None:
        """See whether the worker was lost because the container was stopped for its disk.

        Raises:
            DiskExhausted: It was: what filled it would do so again.
        """
        stopped = None if self._guard is None else self._guard.take_stop()
        if stopped is not None:
            raise stopped

    def _refusals(self) -> tuple[str, ...]:
        return () if self._admission is None else self._admission.take_refusals()

    async def _let_go(self) -> None:
        if self._keeper is not None:
            await self._keeper.let_go()
        self._held = self._leased = None
        self._is_whole = self._has_latest = False
        await self._holding.aclose()


@contextmanager
def _lost_on_the_way() -> Iterator[None]:
    """Take a tree that was there and is gone, which commands can bring about, as a lost worker."""
    try:
        yield
    except TreeGone as gone:
        raise WorkerUnreachable(gone.detail) from gone


async def _nothing(_worker: Worker) -> None:
    return None
