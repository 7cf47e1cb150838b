"""Read what was said in earlier tasks."""

from orchestrator.domain.conversation import Message, Role
from orchestrator.domain.history import Conversation, conversation_at
from orchestrator.domain.lineage import Lineage, Relation
from orchestrator.domain.task import Task
from orchestrator.ports import Engine, TaskStore


class Recall:
    """Knows the conversations of earlier tasks.

    Args:
        tasks: Their records.
        engine: The records of their steps.
        repeats_named: As of the agent that worked on them.
    """

    def __init__(self, tasks: TaskStore, engine: Engine, repeats_named: int) -> None:
        self._tasks = tasks
        self._engine = engine
        self._repeats_named = repeats_named

    async def messages(self, lineage: Lineage) -> tuple[Message, ...]:
        """The conversation that a task begins with, without instructions.

        What was said to a continued task too late for it to hear comes last.
        """
        parent = await self._tasks.get(lineage.parent)
        found = await self.conversation(parent, lineage.step)
        if lineage.relation is Relation.FORKS:
            return found.messages
        unheard = await self._tasks.messages(parent.id, found.heard)
        return (*found.messages, *(Message(Role.USER, each.text) for each in unheard))

    async def conversation(self, task: Task, step: int | None) -> Conversation:
        """What was said in a task up to a step; None for all of it."""
        records = await self._engine.completed(task.id)
        return conversation_at(records, task.query, step, self._repeats_named)
