"""The work on a task: its tree, the agent's loop, and the patch that comes of it."""

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from pydantic import JsonValue

from orchestrator.agent import AgentLoop
from orchestrator.domain.container import Container
from orchestrator.domain.conversation import Message
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.steps import CONVERSATION, Inherited
from orchestrator.domain.task import Ending, NewTask, Task
from orchestrator.errors import BerthError, DatabaseUnavailable, StaleLease, WorkerUnreachable
from orchestrator.flow.disk import DiskGuard
from orchestrator.flow.ending import answered
from orchestrator.flow.finish import Finish, PartialResult
from orchestrator.flow.hands import Hands
from orchestrator.flow.lease import Leased
from orchestrator.flow.narration import Narration
from orchestrator.flow.restore import Restored
from orchestrator.flow.task_parts import TaskParts
from orchestrator.ports import Admission, PreparedTask, Steps
from orchestrator.tools.kept_output import KeptOutput

log = structlog.get_logger(__name__)

KEEP_WORK_SECONDS = 60.0  # a worker that hangs is ended and started anew in it
LEFT_AS_IT_IS = (StaleLease, DatabaseUnavailable)
"""What is not the task's fault: it has no ending here."""

_LACKING = "lacking"
PATCH_LOST = "What the task changed could not be read from its container, so the diff is empty."


class TaskWork:
    """One attempt at a task, under the lease of a generation.

    Args:
        parts: What every run shares.
        finish: Makes the ending.
        task: The task.
        steps: What was completed before, and what is completed now.
        result: Where to put what comes of it; right also after an error.
        generation: Of the lease that the task runs under.
    """

    def __init__(
        self,
        parts: TaskParts,
        *,
        finish: Finish,
        task: NewTask,
        steps: Steps,
        result: PartialResult,
        generation: int,
    ) -> None:
        self._parts = parts
        self._finish = finish
        self._task = task
        self._steps = steps
        self._result = result
        self._generation = generation

    async def done(self, kept: Task) -> tuple[Task, Ending]:
        """Work until the model has answered everything that was said; returns the ended task.

        Raises:
            BerthError: The work cannot go on; the result has what came of it.
        """
        parts, task = self._parts, self._task
        keeper = parts.custody.keeper(task, self._tell_restored)
        async with Hands(
            task,
            self._generation,
            parts.lease,
            parts.supply,
            self._tell_prepared,
            admit=self._admit,
            keeper=keeper,
            watch=self._watch,
        ) as hands:
            loop = self._loop(hands)
            answer = loop.run(task.query, await self._earlier())
            while True:
                await self._await_answer(hands, answer)
                await self._keep_patch(hands)
                ending = self._finish.ending(kept, self._result, answered(self._result.answer))
                # Refused if something was said meanwhile: nobody would hear it any more.
                recorded = await parts.tasks.finish(
                    kept.id, ending, self._generation, heard=self._result.ledger.heard
                )
                if recorded.ending is not None:
                    return recorded, recorded.ending
                answer = loop.go_on()

    def _admit(self, container: Container) -> AbstractAsyncContextManager[Admission]:
        return self._parts.egress.admit(self._task.id, container, self._tell)

    def _watch(self, leased: Leased) -> AbstractAsyncContextManager[DiskGuard]:
        return self._parts.disk.guard(self._task.id, leased, self._tell_disk)

    async def _tell_disk(self, event: NewEvent) -> None:
        self._result.notices[str(event.data["text"])] = None
        await self._tell(event)

    async def _tell_prepared(self, leased: Leased, tree: PreparedTask) -> None:
        attempt = secrets.token_hex(4)
        await self._tell(NewEvent(EventKind.CONTAINER, 0, _container(leased), attempt))
        dependencies: list[JsonValue] = [*tree.dependencies]
        await self._tell(NewEvent(EventKind.PREPARED, 0, {"dependencies": dependencies}, attempt))
        if self._task.install_dependencies:
            self._result.notices.update(dict.fromkeys(tree.dependencies))
        lacking = tree.lacking.sentence
        if lacking:
            # Once a task: an attempt after this one is told the same.
            await self._tell(NewEvent(EventKind.NOTICE, 0, {"text": lacking}, _LACKING))
            self._result.notices[lacking] = None

    async def _tell_restored(self, restored: Restored) -> None:
        data: dict[str, JsonValue] = {
            "text": restored.sentence,
            "restored_step": restored.step,
            "repeated_steps": [*restored.repeated],
        }
        await self._tell(NewEvent(EventKind.NOTICE, 0, data))
        self._result.notices[restored.sentence] = None

    async def _tell(self, event: NewEvent) -> None:
        await self._parts.events.append(self._task.id, event, self._generation)

    async def _await_answer(self, hands: Hands, answer: Coroutine[Any, Any, str]) -> None:
        try:
            self._result.answer = await answer
        except LEFT_AS_IT_IS:
            raise
        except BaseException:
            # If the task only leaves us, its calls go on, and the next process hears of them.
            if not self._parts.running.is_leaving:
                await self._salvage_patch(hands)
            raise

    async def _earlier(self) -> Sequence[Message]:
        """The conversation the task begins with; kept with it, since its parent may go."""
        lineage = self._task.lineage
        if lineage is None:
            return ()

        async def read() -> Inherited:
            return Inherited(await self._parts.recall.messages(lineage))

        return (await self._steps.run(CONVERSATION, Inherited, read)).messages

    def _loop(self, hands: Hands) -> AgentLoop:
        parts, task = self._parts, self._task
        narration = Narration(task.id, self._generation, parts.events, parts.live_text)
        # Beside the outputs that an earlier task has kept in the tree.
        prefix = "" if task.lineage is None else f"{task.id}-"
        loop = AgentLoop(
            agent=replace(parts.agent, model=task.model or parts.agent.model),
            budget=task.budget,
            model=parts.model,
            toolbox=KeptOutput(hands, hands, task.id, parts.tool_output_chars, prefix),
            steps=self._steps,
            record=narration.record,
            clock=parts.clock,
            say=narration.say,
            inbox=partial(parts.tasks.messages, task.id),
        )
        self._result.ledger = loop.ledger
        return loop

    async def _salvage_patch(self, hands: Hands) -> None:
        """Keep the patch of work that an error ended; that error says more than a lost patch."""
        try:
            await self._keep_patch(hands)
        except LEFT_AS_IT_IS:
            raise
        except BerthError as failure:
            log.warning("patch_lost", task=self._task.id, code=failure.code, detail=failure.detail)
            self._result.notices[PATCH_LOST] = None

    async def _keep_patch(self, hands: Hands) -> None:
        """Read the patch of a tree in which nothing moves any more."""
        result = self._result
        try:
            async with asyncio.timeout(KEEP_WORK_SECONDS):
                await hands.interrupt()
                preserved, result.patch = await asyncio.gather(hands.preserved(), hands.patch())
                if preserved:
                    result.notices[preserved] = None
        except TimeoutError:
            raise WorkerUnreachable(
                f"The worker did not hand over the patch within {KEEP_WORK_SECONDS:.0f} s. Its "
                "tree may be too large; send the task again."
            ) from None


def _container(leased: Leased) -> dict[str, JsonValue]:
    container = leased.container
    return {"name": container.name, "runtime": container.runtime, "how": container.how.value}
