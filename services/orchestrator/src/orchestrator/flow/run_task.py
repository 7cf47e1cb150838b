"""Run an accepted task to its end, whatever happens on the way."""

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog
from pydantic import JsonValue

from orchestrator.agent import Agent, AgentLoop, Ledger
from orchestrator.domain.container import Container
from orchestrator.domain.conversation import Message
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.steps import CONVERSATION, Inherited
from orchestrator.domain.task import Ending, NewTask, Patch, Task
from orchestrator.errors import (
    BerthError,
    DatabaseUnavailable,
    RuntimeFailure,
    StaleLease,
    WorkerUnreachable,
)
from orchestrator.flow.custody import Custody
from orchestrator.flow.ending import Outcome, answered, cancelled, conclude, failed
from orchestrator.flow.hands import Hands
from orchestrator.flow.inputs import Inputs
from orchestrator.flow.lease import Lease, Leased
from orchestrator.flow.narration import Narration
from orchestrator.flow.recall import Recall
from orchestrator.flow.restore import Restored
from orchestrator.flow.running import RunningTasks
from orchestrator.flow.supply import Supply
from orchestrator.ports import (
    Admission,
    Clock,
    Egress,
    EventLog,
    LiveTextChannel,
    Model,
    PreparedTask,
    Steps,
    TaskStore,
)
from orchestrator.tools.kept_output import KeptOutput

log = structlog.get_logger(__name__)

KEEP_WORK_SECONDS = 30.0
LEFT_AS_IT_IS = (StaleLease, DatabaseUnavailable)
"""What is not the task's fault: it has no ending here."""

UNHEARD = "The task ended before the model heard all messages; a task that continues it hears them."
PATCH_LOST = "What the task changed could not be read from its container, so the diff is empty."


@dataclass(frozen=True, slots=True)
class TaskParts:
    """What running a task needs from outside."""

    lease: Lease
    supply: Supply
    custody: Custody
    egress: Egress
    inputs: Inputs
    model: Model
    tasks: TaskStore
    events: EventLog
    live_text: LiveTextChannel
    running: RunningTasks
    clock: Clock
    agent: Agent
    recall: Recall
    tool_output_chars: int


@dataclass(slots=True)
class _Work:
    """What is known of a running task so far; right at any moment."""

    ledger: Ledger
    patch: Patch
    generation: int | None = None
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
        """Run the task; every outcome is recorded as its ending, except these.

        Raises:
            CancelledError: This process is about to end.
            StaleLease: Another orchestrator goes on with the task, or is to do so.
            DatabaseUnavailable: Nothing can be recorded; the task is to be begun again later.
        """
        running = self._parts.running
        if running.stopping.is_set():
            raise asyncio.CancelledError  # taken from the queue too late: the next process has it
        with running.entered(task_id):
            try:
                await self._under_lease(await self._parts.tasks.get(task_id), steps)
            except asyncio.CancelledError:
                if running.is_abandoned and not running.stopping.is_set():
                    raise StaleLease(f"Task {task_id} was abandoned here.") from None
                raise

    async def _under_lease(self, kept: Task, steps: Steps) -> None:
        async with AsyncExitStack() as stack:
            generation = await self._leased(kept, stack)
            if generation is None:  # cancelled while it waited for its turn: it never ran here
                await self._finish(kept, _Work(Ledger(), Patch()), cancelled())
                return
            try:
                # Read again, as the holder before us has left it.
                await self._go_on(await self._parts.tasks.get(kept.id), generation, steps)
            except StaleLease:
                for task_id in await self._parts.lease.lost(kept.workspace, generation):
                    if task_id != kept.id:
                        self._parts.running.abandon(task_id)
                raise

    async def _go_on(self, kept: Task, generation: int, steps: Steps) -> None:
        if kept.ending is None:
            await self._run(kept, generation, steps)
        else:
            await self._close(kept, kept.ending, generation)

    async def _leased(self, kept: Task, stack: AsyncExitStack) -> int | None:
        """The generation of the lease once it is taken; None if the task was cancelled before."""
        if kept.cancel_requested and kept.ending is None:
            return None
        try:
            taking = self._parts.lease.taken(kept.workspace, kept.id)
            return await stack.enter_async_context(taking)
        except asyncio.CancelledError:
            if self._parts.running.is_leaving:
                raise
            _uncancel()
            return None

    async def _run(self, kept: Task, generation: int, steps: Steps) -> None:
        work = _Work(Ledger(), Patch(), generation)
        try:
            task = await self._restored(kept)
            recorded, ending = await self._work_on(kept, task, generation, work, steps)
        except asyncio.CancelledError:
            if self._parts.running.is_leaving:
                raise  # another process goes on with it
            _uncancel()
            outcome = cancelled()
        except LEFT_AS_IT_IS:
            raise
        except BerthError as error:
            outcome = replace(failed(error), answer=work.answer)
        except Exception as error:
            # A defect of ours must not leave the task running for ever.
            log.exception("task_broke", task=kept.id)
            outcome = failed(_defect(error))
        else:
            await self._close(recorded, ending, generation)
            return
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
            lineage=kept.lineage,
            dry_run=kept.dry_run,
        )

    async def _work_on(
        self, kept: Task, task: NewTask, generation: int, work: _Work, steps: Steps
    ) -> tuple[Task, Ending]:
        """Work until the model has answered everything that was said; returns the ended task."""

        def admit(container: Container) -> AbstractAsyncContextManager[Admission]:
            report = partial(self._tell, task.id, generation=generation)
            return self._parts.egress.admit(task.id, container, report)

        async def prepared(leased: Leased, tree: PreparedTask) -> None:
            attempt = secrets.token_hex(4)
            began = NewEvent(EventKind.CONTAINER, 0, _container(leased), attempt)
            await self._tell(task.id, began, generation)
            dependencies: list[JsonValue] = [*tree.dependencies]
            stands = NewEvent(EventKind.PREPARED, 0, {"dependencies": dependencies}, attempt)
            await self._tell(task.id, stands, generation)
            if task.install_dependencies:
                work.notices.update(dict.fromkeys(tree.dependencies))

        async def brought_back(restored: Restored) -> None:
            data: dict[str, JsonValue] = {
                "text": restored.sentence,
                "restored_step": restored.step,
                "repeated_steps": [*restored.repeated],
            }
            await self._tell(task.id, NewEvent(EventKind.NOTICE, 0, data), generation)
            work.notices[restored.sentence] = None

        parts = self._parts
        keeper = parts.custody.keeper(task, brought_back)
        async with Hands(
            task, generation, parts.lease, parts.supply, prepared, admit=admit, keeper=keeper
        ) as hands:
            loop = self._loop(task, work, hands, steps)
            answer = loop.run(task.query, await self._earlier(task, steps))
            while True:
                await self._await_answer(task, work, hands, answer)
                await self._keep_patch(work, hands)
                ending = self._ending(kept, work, answered(work.answer))
                # Refused if something was said meanwhile: nobody would hear it any more.
                recorded = await parts.tasks.finish(
                    kept.id, ending, generation, heard=work.ledger.heard
                )
                if recorded.ending is not None:
                    return recorded, recorded.ending
                answer = loop.go_on()

    async def _await_answer(
        self, task: NewTask, work: _Work, hands: Hands, answer: Coroutine[Any, Any, str]
    ) -> None:
        try:
            work.answer = await answer
        except LEFT_AS_IT_IS:
            raise
        except BaseException:
            # If the task only leaves us, its calls go on, and the next process hears of them.
            if not self._parts.running.is_leaving:
                await self._salvage_patch(task, work, hands)
            raise

    async def _earlier(self, task: NewTask, steps: Steps) -> Sequence[Message]:
        """The conversation the task begins with; kept with it, since its parent may go."""
        lineage = task.lineage
        if lineage is None:
            return ()

        async def read() -> Inherited:
            return Inherited(await self._parts.recall.messages(lineage))

        return (await steps.run(CONVERSATION, Inherited, read)).messages

    def _loop(self, task: NewTask, work: _Work, hands: Hands, steps: Steps) -> AgentLoop:
        parts = self._parts
        narration = Narration(task.id, work.generation, parts.events, parts.live_text)
        # Beside the outputs that an earlier task has kept in the tree.
        prefix = "" if task.lineage is None else f"{task.id}-"
        loop = AgentLoop(
            agent=parts.agent,
            budget=task.budget,
            model=parts.model,
            toolbox=KeptOutput(hands, hands, task.id, parts.tool_output_chars, prefix),
            steps=steps,
            record=narration.record,
            clock=parts.clock,
            say=narration.say,
            inbox=lambda after: parts.tasks.messages(task.id, after),
        )
        work.ledger = loop.ledger
        return loop

    async def _salvage_patch(self, task: NewTask, work: _Work, hands: Hands) -> None:
        """Keep the patch of work that an error ended; that error says more than a lost patch."""
        try:
            await self._keep_patch(work, hands)
        except LEFT_AS_IT_IS:
            raise
        except BerthError as failure:
            log.warning("patch_lost", task=task.id, code=failure.code, detail=failure.detail)
            work.notices[PATCH_LOST] = None

    async def _keep_patch(self, work: _Work, hands: Hands) -> None:
        """Read the patch of a tree in which nothing moves any more."""
        try:
            async with asyncio.timeout(KEEP_WORK_SECONDS):
                await hands.interrupt()
                preserved, work.patch = await asyncio.gather(hands.preserved(), hands.patch())
                if preserved:
                    work.notices[preserved] = None
        except TimeoutError:
            raise WorkerUnreachable(
                f"The worker did not hand over the patch within {KEEP_WORK_SECONDS:.0f} s. Its "
                "tree may be too large; send the task again."
            ) from None

    async def _finish(self, kept: Task, work: _Work, outcome: Outcome) -> None:
        if await self._parts.tasks.messages(kept.id, work.ledger.heard):
            work.notices[UNHEARD] = None
        ending = self._ending(kept, work, outcome)
        recorded = await self._parts.tasks.finish(kept.id, ending, work.generation)
        await self._close(recorded, recorded.ending or ending, work.generation)

    def _ending(self, kept: Task, work: _Work, outcome: Outcome) -> Ending:
        seconds = (self._parts.clock.now() - kept.created_at).total_seconds()
        work.ledger.notices.update(work.notices)
        return conclude(outcome, work.ledger, work.patch, seconds)

    async def _close(self, task: Task, ending: Ending, generation: int | None) -> None:
        """Everything after the ending; done again if a crash fell in the middle of it."""
        await self._parts.inputs.drop(task.id, task.files)
        if task.workspace.is_scratch and generation is not None:
            await self._discard(task, generation)
        finished = NewEvent(EventKind.FINISHED, ending.steps, _finished(ending), "once")
        await self._tell(task.id, finished, generation)
        if generation is not None:
            self._parts.custody.tidy.begin(task, generation)

    async def _discard(self, task: Task, generation: int) -> None:
        """Nobody else can use a scratch workspace: its container goes with its task."""
        try:
            await self._parts.lease.discard(task.workspace, generation)
        except RuntimeFailure as failure:
            log.warning("scratch_left_behind", task=task.id, code=failure.code)

    async def _tell(self, task_id: str, event: NewEvent, generation: int | None) -> None:
        await self._parts.events.append(task_id, event, generation)


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
