"""Run an accepted task to its end, whatever happens on the way."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import structlog

from orchestrator.agent import Ledger
from orchestrator.domain.task import NewTask, Patch, Task
from orchestrator.errors import BerthError, StaleLease
from orchestrator.flow.ending import cancelled, failed
from orchestrator.flow.finish import Finish, PartialResult
from orchestrator.flow.task_parts import TaskParts
from orchestrator.flow.task_work import LEFT_AS_IT_IS, TaskWork
from orchestrator.ports import Steps

log = structlog.get_logger(__name__)


class RunTask:
    """Runs one task: container, tree, loop, patch, record.

    It may be begun several times, each time after a crash: what was recorded stays, and what the
    steps have completed is not done again.
    """

    def __init__(self, parts: TaskParts) -> None:
        self._parts = parts
        self._finish = Finish(parts)

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
                await self._heeding(task_id, steps)
            except asyncio.CancelledError:
                if running.is_abandoned and not running.stopping.is_set():
                    raise StaleLease(f"Task {task_id} was abandoned here.") from None
                raise

    async def _heeding(self, task_id: str, steps: Steps) -> None:
        """Run the task, and end it if its end is asked for while none of its work is under way."""
        try:
            await self._under_lease(await self._parts.tasks.get(task_id), steps)
        except asyncio.CancelledError:
            if self._parts.running.is_leaving:
                raise
            _uncancel()
            # The record tells it now, and no task is cancelled twice.
            await self._under_lease(await self._parts.tasks.get(task_id), steps)

    async def _under_lease(self, kept: Task, steps: Steps) -> None:
        async with AsyncExitStack() as stack:
            if kept.cancel_requested and kept.ending is None:  # before it ran here
                await self._finish(kept, PartialResult(Ledger(), Patch()), cancelled())
                return
            taking = self._parts.lease.taken(kept.workspace, kept.id)
            generation = await stack.enter_async_context(taking)
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
            await self._finish.clear_up(kept, kept.ending, generation)

    async def _run(self, kept: Task, generation: int, steps: Steps) -> None:
        result = PartialResult(Ledger(), Patch(), generation)
        try:
            task = await self._restored(kept)
            work = TaskWork(
                self._parts,
                finish=self._finish,
                task=task,
                steps=steps,
                result=result,
                generation=generation,
            )
            recorded, ending = await work.done(kept)
        except asyncio.CancelledError:
            if self._parts.running.is_leaving:
                raise  # another process goes on with it
            _uncancel()
            outcome = cancelled()
        except LEFT_AS_IT_IS:
            raise
        except BerthError as error:
            outcome = replace(failed(error), answer=result.answer)
        except Exception as error:
            # A defect of ours must not leave the task running for ever.
            log.exception("task_broke", task=kept.id)
            outcome = failed(_defect(error))
        else:
            await self._finish.clear_up(recorded, ending, generation)
            return
        await self._finish(kept, result, outcome)

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
            model=kept.model,
        )


def _uncancel() -> None:
    """Use up a cancellation that was meant for the task's work and not for its ending."""
    current = asyncio.current_task()
    if current is not None:
        current.uncancel()


def _defect(error: Exception) -> BerthError:
    return BerthError(
        f"Berth failed in a way it should not ({type(error).__name__}). The log has the details; "
        "please report it."
    )
