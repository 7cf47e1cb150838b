"""Run an accepted task to its end, whatever happens on the way."""

import asyncio
from dataclasses import dataclass, replace

import structlog
from pydantic import JsonValue

from orchestrator.agent import Agent, AgentLoop, Ledger
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.task import Ending, NewTask, Patch, Task
from orchestrator.errors import BerthError, RuntimeFailure, WorkerUnreachable
from orchestrator.flow.ending import Outcome, answered, cancelled, conclude, failed
from orchestrator.flow.lease import Lease, Leased
from orchestrator.flow.supply import Supply
from orchestrator.ports import Clock, EventLog, Model, TaskStore, Toolbox, Worker
from orchestrator.tools.kept_output import KeptOutput

log = structlog.get_logger(__name__)

KEEP_WORK_SECONDS = 30.0
PATCH_LOST = "What the task changed could not be read from its container, so the diff is empty."


@dataclass(frozen=True, slots=True)
class TaskParts:
    """What running a task needs from outside; `slots` bounds the tasks at work at once."""

    lease: Lease
    supply: Supply
    model: Model
    tasks: TaskStore
    events: EventLog
    clock: Clock
    agent: Agent
    tool_output_chars: int
    slots: asyncio.Semaphore


@dataclass(slots=True)
class _Work:
    """What is known of a running task so far; right at any moment."""

    began: float
    ledger: Ledger
    patch: Patch
    answer: str = ""


class RunTask:
    """Runs one task: container, tree, loop, patch, record."""

    def __init__(self, parts: TaskParts) -> None:
        self._parts = parts

    async def __call__(self, task: NewTask) -> Task:
        """Run the task; every outcome, cancellation included, is recorded as its ending."""
        work = _Work(self._parts.clock.monotonic(), Ledger(), Patch())
        try:
            async with self._parts.slots:
                await self._work_on(task, work)
            outcome = answered(work.answer)
        except asyncio.CancelledError:
            # The cancellation is used up here: the caller awaits the recorded ending.
            outcome = cancelled()
        except BerthError as error:
            outcome = replace(failed(error), answer=work.answer)
        except Exception as error:
            # A defect of ours must not leave the task running for ever.
            log.exception("task_broke", task=task.id)
            outcome = failed(_defect(error))
        return await self._finish(task, work, outcome)

    async def _work_on(self, task: NewTask, work: _Work) -> None:
        async with self._parts.lease.hold(task.workspace) as leased:
            await self._tell(task, EventKind.CONTAINER, _container(leased))
            prepared = await self._parts.supply(task, leased.worker)
            await self._tell(
                task, EventKind.PREPARED, {"dependencies": list(prepared.dependencies)}
            )
            try:
                async with leased.worker.toolbox(task.id) as toolbox:
                    work.answer = await self._loop(task, work, leased.worker, toolbox)
            except BaseException:
                await self._salvage_patch(task, work, leased.worker)
                raise
            await self._keep_patch(task, work, leased.worker)

    async def _loop(self, task: NewTask, work: _Work, worker: Worker, toolbox: Toolbox) -> str:
        parts = self._parts
        loop = AgentLoop(
            agent=parts.agent,
            budget=task.budget,
            model=parts.model,
            toolbox=KeptOutput(toolbox, worker, task.id, parts.tool_output_chars),
            record=lambda event: parts.events.append(task.id, event),
            clock=parts.clock,
        )
        work.ledger = loop.ledger
        return await loop.run(task.query)

    async def _salvage_patch(self, task: NewTask, work: _Work, worker: Worker) -> None:
        """Keep the patch of work that an error ended; that error says more than a lost patch."""
        try:
            await self._keep_patch(task, work, worker)
        except BerthError as failure:
            log.warning("patch_lost", task=task.id, code=failure.code, detail=failure.detail)
            work.ledger.notices[PATCH_LOST] = None

    async def _keep_patch(self, task: NewTask, work: _Work, worker: Worker) -> None:
        """Read the patch while the worker is at hand; a dead worker's volume is read later."""
        try:
            async with asyncio.timeout(KEEP_WORK_SECONDS):
                work.patch = await worker.patch(task.id)
        except WorkerUnreachable:
            log.warning("worker_gone", task=task.id)
            work.patch = await self._patch_of_revived(task)
        except TimeoutError:
            raise WorkerUnreachable(
                f"The worker did not hand over the patch within {KEEP_WORK_SECONDS:.0f} s. Its "
                "tree may be too large; send the task again."
            ) from None

    async def _patch_of_revived(self, task: NewTask) -> Patch:
        """The patch read through a new container on the same volume."""
        async with self._parts.lease.hold(task.workspace) as leased:
            return await leased.worker.patch(task.id)

    async def _finish(self, task: NewTask, work: _Work, outcome: Outcome) -> Task:
        seconds = self._parts.clock.monotonic() - work.began
        ending = conclude(outcome, work.ledger, work.patch, seconds)
        recorded = await self._parts.tasks.finish(task.id, ending)
        await self._tell(task, EventKind.FINISHED, _finished(ending), ending.steps)
        if task.workspace.is_scratch:
            await self._discard(task)
        return recorded

    async def _discard(self, task: NewTask) -> None:
        """Nobody else can use a scratch workspace: its container goes with its task."""
        try:
            await self._parts.lease.discard(task.workspace)
        except RuntimeFailure as failure:
            log.warning("scratch_left_behind", task=task.id, code=failure.code)

    async def _tell(
        self, task: NewTask, kind: EventKind, data: dict[str, JsonValue], step: int = 0
    ) -> None:
        await self._parts.events.append(task.id, NewEvent(kind, step, data))


def _container(leased: Leased) -> dict[str, JsonValue]:
    container = leased.container
    return {"name": container.name, "runtime": container.runtime, "how": container.how.value}


def _finished(ending: Ending) -> dict[str, JsonValue]:
    return {
        "status": ending.status.value,
        "stop_reason": ending.stop_reason.value,
        "changed_files": list(ending.patch.changed_files),
        "error": None if ending.error is None else ending.error.detail,
    }


def _defect(error: Exception) -> BerthError:
    return BerthError(
        f"Berth failed in a way it should not ({type(error).__name__}). The log has the details; "
        "please report it."
    )
