"""Record how a task ended, and clear up after it."""

from dataclasses import dataclass, field

import structlog
from pydantic import JsonValue

from orchestrator.agent import Ledger
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.task import Ending, Patch, Task
from orchestrator.errors import RuntimeFailure
from orchestrator.flow.ending import Outcome, conclude
from orchestrator.flow.task_parts import TaskParts

log = structlog.get_logger(__name__)

UNHEARD = "The task ended before the model heard all messages; a task that continues it hears them."


@dataclass(slots=True)
class PartialResult:
    """What is known of a running task so far; right at any moment."""

    ledger: Ledger
    patch: Patch
    generation: int | None = None
    answer: str = ""
    notices: dict[str, None] = field(default_factory=dict)


class Finish:
    """Ends tasks, each once, whatever came of them."""

    def __init__(self, parts: TaskParts) -> None:
        self._parts = parts

    async def __call__(self, kept: Task, result: PartialResult, outcome: Outcome) -> None:
        """Record the ending of a task whose work is over, and clear up.

        Raises:
            StaleLease: Another orchestrator has the task.
            DatabaseUnavailable: Nothing can be recorded.
        """
        if await self._parts.tasks.messages(kept.id, result.ledger.heard):
            result.notices[UNHEARD] = None
        ending = self.ending(kept, result, outcome)
        recorded = await self._parts.tasks.finish(kept.id, ending, result.generation)
        await self.clear_up(recorded, recorded.ending or ending, result.generation)

    def ending(self, kept: Task, result: PartialResult, outcome: Outcome) -> Ending:
        """The ending of a task, as of now."""
        seconds = (self._parts.clock.now() - kept.created_at).total_seconds()
        result.ledger.notices.update(result.notices)
        return conclude(outcome, result.ledger, result.patch, seconds)

    async def clear_up(self, task: Task, ending: Ending, generation: int | None) -> None:
        """Everything after the ending; done again if a crash fell in the middle of it."""
        await self._parts.inputs.drop(task.id, task.files)
        if task.workspace.is_scratch and generation is not None:
            await self._discard(task, generation)
        finished = NewEvent(EventKind.FINISHED, ending.steps, _finished(ending), "once")
        await self._parts.events.append(task.id, finished, generation)
        if generation is not None:
            self._parts.custody.tidy.begin(task, generation)

    async def _discard(self, task: Task, generation: int) -> None:
        """Nobody else can use a scratch workspace: its container goes with its task."""
        try:
            await self._parts.lease.discard(task.workspace, generation)
        except RuntimeFailure as failure:
            log.warning("scratch_left_behind", task=task.id, code=failure.code)


def _finished(ending: Ending) -> dict[str, JsonValue]:
    return {
        "status": ending.status.value,
        "stop_reason": ending.stop_reason.value,
        "changed_files": list(ending.patch.changed_files),
        "error": None if ending.error is None else ending.error.detail,
    }
