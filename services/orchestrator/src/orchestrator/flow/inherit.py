"""Give a task what it has from an earlier one: its tree, and its conversation."""

from orchestrator.domain.conversation import Message, Role
from orchestrator.domain.history import Conversation, conversation_at
from orchestrator.domain.lineage import Lineage, Relation
from orchestrator.domain.task import NewTask, Task
from orchestrator.errors import TreeGone
from orchestrator.flow.past_tree import require_past_tree
from orchestrator.ports import Engine, PreparedTask, TaskStore, Worker


class Inherit:
    """Knows earlier tasks.

    Args:
        tasks: Their records.
        engine: The records of their steps.
        repeats_named: As of the agent that worked on them.
    """

    def __init__(self, tasks: TaskStore, engine: Engine, repeats_named: int) -> None:
        self._tasks = tasks
        self._engine = engine
        self._repeats_named = repeats_named

    async def __call__(self, task: NewTask, lineage: Lineage, worker: Worker) -> PreparedTask:
        """Make the tree of a task that builds on another.

        Raises:
            TreeGone: The worker has not the tree of the other.
        """
        parent = await self._tasks.get(lineage.parent)
        if lineage.relation is Relation.FORKS:
            await require_past_tree(parent, worker)
            return await worker.fork_tree(task.id, parent.id, lineage.step or 0)
        holder = await self._holder(parent, worker)
        return await worker.continue_tree(task.id, holder.id, task.files)

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

    async def _holder(self, parent: Task, worker: Worker) -> Task:
        """Whose tree it is: a continuation that failed before it had the tree never took it."""
        task = parent
        while True:
            try:
                await require_past_tree(task, worker)
            except TreeGone:
                lineage = task.lineage
                if lineage is None or lineage.relation is not Relation.CONTINUES:
                    raise
                task = await self._tasks.get(lineage.parent)
            else:
                return task
