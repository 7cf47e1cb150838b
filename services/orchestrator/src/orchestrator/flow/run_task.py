"""Run an accepted task to its end, whatever happens on the way."""

import asyncio
import secrets
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from functools import partial

import structlog
from pydantic import JsonValue

from orchestrator.agent import Agent, AgentLoop, Ledger
from orchestrator.domain.container import Container
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.task import Ending, NewTask, Patch, Task
from orchestrator.errors import BerthError, RuntimeFailure, WorkerUnreachable
from orchestrator.flow.ending import Outcome, answered, cancelled, conclude, failed
from orchestrator.flow.hands import Hands
from orchestrator.flow.inputs import Inputs
from orchestrator.flow.lease import Lease, Leased
from orchestrator.flow.running import RunningTasks
from orchestrator.flow.supply import Supply
from orchestrator.ports import (
    Admission,
    Clock,
    Egress,
    EventLog,
    Model,
    PreparedTask,
    Steps,
    TaskStore,
)
from orchestrator.tools.kept_output import KeptOutput

log = structlog.get_logger(__name__)

KEEP_WORK_SECONDS = 30.0
PATCH_LOST = "What the task changed could not be read from its container, so the diff is empty."


@dataclass(frozen=True, slots=True)
class TaskParts:
    """What running a task needs from outside."""

    lease: Lease
    supply: Supply
    egress: Egress
    inputs: Inputs
    model: Model
    tasks: TaskStore
    events: EventLog
    running: RunningTasks
    clock: Clock
    agent: Agent
    tool_output_chars: int


@dataclass(slots=True)
class _Work:
    """What is known of a running task so far; right at any moment."""

    ledger: Ledger
    patch: Patch
    answer: str = ""
    notices: dict[str, None] = field(default_factory=dict)


class RunTask:
    """Runs one task: container, tree, loop, patch, record.

    It may be begun several times, each time after a crash: what was recorded stays, and what the
    steps have completed is not done again.
    """

    def __init__(self, parts: TaskParts) -> None:
        self._parts = parts

    async def __call__(self, task_id: str, steps: Steps) -> None:
        """Run the task; every outcome but the process's own end is recorded as its ending."""
        if self._parts.running.stopping.is_set():
            raise asyncio.CancelledError  # taken from the queue too late: the next process has it
        with self._parts.running.entered(task_id):
            kept = await self._parts.tasks.get(task_id)
            if kept.ending is None:
                await self._run(kept, steps)
            else:
                await self._close(kept, kept.ending)

    async def _run(self, kept: Task, steps: Steps) -> None:
        work = _Work(Ledger(), Patch())
        try:
            await self._work_on(await self._restored(kept), work, steps)
            outcome = answered(work.answer)
        except asyncio.CancelledError:
            if self._parts.running.stopping.is_set():
                raise  # the next process goes on with it
            _uncancel()
            outcome = cancelled()
        except BerthError as error:
            outcome = replace(failed(error), answer=work.answer)
        except Exception as error:
            # A defect of ours must not leave the task running for ever.
            log.exception("task_broke", task=kept.id)
            outcome = failed(_defect(error))
        await self._finish(kept, work, outcome)

    async def _restored(self, kept: Task) -> NewTask:
        """The task as it was accepted.

        Raises:
            CancelledError: A caller has asked for its end.
        """
        if kept.cancel_requested:
            raise asyncio.CancelledError
        return NewTask(
            id=kept.id,
            query=kept.query,
            workspace=kept.workspace,
            start=kept.start,
            files=await self._parts.inputs.load(kept.id, kept.files),
            budget=kept.budget,
            install_dependencies=kept.install_dependencies,
        )

    async def _work_on(self, task: NewTask, work: _Work, steps: Steps) -> None:
        def admit(container: Container) -> AbstractAsyncContextManager[Admission]:
            return self._parts.egress.admit(
                task.id, container, partial(self._parts.events.append, task.id)
            )

        async def prepared(leased: Leased, tree: PreparedTask) -> None:
            attempt = secrets.token_hex(4)
            await self._tell(task.id, EventKind.CONTAINER, _container(leased), key=attempt)
            dependencies: list[JsonValue] = [*tree.dependencies]
            await self._tell(
                task.id, EventKind.PREPARED, {"dependencies": dependencies}, key=attempt
            )
            if task.install_dependencies:
                work.notices.update(dict.fromkeys(tree.dependencies))

        parts = self._parts
        async with Hands(task, parts.lease, parts.supply, admit, prepared) as hands:
            try:
                work.answer = await self._loop(task, work, hands, steps)
            except BaseException:
                # If this process ends, the calls go on and the next process hears of them.
                if not self._parts.running.stopping.is_set():
                    await self._salvage_patch(task, work, hands)
                raise
            await self._keep_patch(work, hands)

    async def _loop(self, task: NewTask, work: _Work, hands: Hands, steps: Steps) -> str:
        parts = self._parts
        loop = AgentLoop(
            agent=parts.agent,
            budget=task.budget,
            model=parts.model,
            toolbox=KeptOutput(hands, hands, task.id, parts.tool_output_chars),
            steps=steps,
            record=lambda event: parts.events.append(task.id, event),
            clock=parts.clock,
        )
        work.ledger = loop.ledger
        return await loop.run(task.query)

    async def _salvage_patch(self, task: NewTask, work: _Work, hands: Hands) -> None:
        """Keep the patch of work that an error ended; that error says more than a lost patch."""
        try:
            await self._keep_patch(work, hands)
        except BerthError as failure:
            log.warning("patch_lost", task=task.id, code=failure.code, detail=failure.detail)
            work.notices[PATCH_LOST] = None

    async def _keep_patch(self, work: _Work, hands: Hands) -> None:
        """Read the patch of a tree in which nothing moves any more."""
        try:
            async with asyncio.timeout(KEEP_WORK_SECONDS):
                await hands.interrupt()
                work.patch = await hands.patch()
        except TimeoutError:
            raise WorkerUnreachable(
                f"The worker did not hand over the patch within {KEEP_WORK_SECONDS:.0f} s. Its "
                "tree may be too large; send the task again."
            ) from None

    async def _finish(self, kept: Task, work: _Work, outcome: Outcome) -> None:
        seconds = (self._parts.clock.now() - kept.created_at).total_seconds()
        work.ledger.notices.update(work.notices)
        ending = conclude(outcome, work.ledger, work.patch, seconds)
        recorded = await self._parts.tasks.finish(kept.id, ending)
        await self._close(recorded, recorded.ending or ending)

    async def _close(self, task: Task, ending: Ending) -> None:
        """Everything after the ending; done again if a crash fell in the middle of it."""
        await self._parts.inputs.drop(task.id, task.files)
        if task.workspace.is_scratch:
            await self._discard(task)
        await self._tell(task.id, EventKind.FINISHED, _finished(ending), ending.steps, "once")

    async def _discard(self, task: Task) -> None:
        """Nobody else can use a scratch workspace: its container goes with its task."""
        try:
            await self._parts.lease.discard(task.workspace)
        except RuntimeFailure as failure:
            log.warning("scratch_left_behind", task=task.id, code=failure.code)

    async def _tell(
        self,
        task_id: str,
        kind: EventKind,
        data: dict[str, JsonValue],
        step: int = 0,
        key: str = "",
    ) -> None:
        await self._parts.events.append(task_id, NewEvent(kind, step, data, key))


def _uncancel() -> None:
    """Use up a cancellation that was meant for the task's work and not for its ending."""
    current = asyncio.current_task()
    if current is not None:
        current.uncancel()


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
