"""Where the repositories of tasks are: each one's tree, its index of checkpoints, its git."""

from dataclasses import dataclass
from pathlib import Path

from agent.errors import BadRequest
from agent.git import run_git
from agent.layout import Layout
from agent.records import EMPTY_TREE, Part, TaskRecord
from agent.tree_reader import TreeReader
from agent.trees import Trees

_INDEX = "kept"
AUTHOR = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Berth"), ("EMAIL", "berth@localhost"))
}


@dataclass(frozen=True, slots=True)
class Place:
    """One repository of a task."""

    task: str
    part: Part
    reader: TreeReader
    private: Path | None
    """The git directory that the task uses; none in a scratch task."""

    async def git(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run git on the tree with the index of the checkpoints."""
        environment = self.reader.environment(self.reader.index) | AUTHOR
        output = await run_git(arguments, self.reader.shadow, environment=environment, stdin=stdin)
        return output.text


class Places:
    """Finds the repositories of tasks."""

    def __init__(self, layout: Layout, trees: Trees) -> None:
        self._layout = layout
        self._trees = trees

    def of(self, task_id: str) -> list[Place]:
        """The repositories of a task.

        Raises:
            UnknownTask: The task has no tree.
        """
        record = self._trees.record(task_id)
        return [self._place(task_id, record, part) for part in record.parts]

    def one(self, task_id: str, name: str) -> Place:
        """One repository of a task.

        Raises:
            BadRequest: The task has none of this name.
        """
        for each in self.of(task_id):
            if each.part.name == name:
                return each
        raise BadRequest(f"the task has no repository {name[:64]!r}")

    def _place(self, task_id: str, record: TaskRecord, part: Part) -> Place:
        reader = TreeReader(
            self._layout.shadow(task_id, part.name),
            self._layout.task(task_id) / part.directory,
            part.submodules,
            record.hidden(part),
            base=_INDEX,
            staged=_INDEX,
        )
        private = self._layout.git_directory(task_id, part.directory)
        return Place(task_id, part, reader, None if part.start == EMPTY_TREE else private)
