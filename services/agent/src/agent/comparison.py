"""What a task changed between two of its steps, from its checkpoints alone."""

import os
import secrets
from dataclasses import replace

from agent.changes import MAX_PATCH_BYTES, ChangeReader, Changes, Comparison
from agent.checkpoint_refs import read_commits
from agent.git import TooMuchOutput, run_all, run_git
from agent.lacking import read_left_out
from agent.patch import shown
from agent.records import Part, TaskRecord
from agent.tree_reader import TreeReader
from agent.trees import Trees


class Comparer:
    """Compares checkpoints; the task may be at work meanwhile, or another in its tree."""

    def __init__(self, trees: Trees, changes: ChangeReader) -> None:
        self._trees = trees
        self._changes = changes

    async def __call__(self, task_id: str, start: int, end: int | None) -> Changes:
        """The patch from the tree after one step to that after another, over all repositories.

        `left_out` names what the checkpoint of one of the two could not carry; whether it differs
        is not known.

        Args:
            task_id: The task.
            start: The first step; 0 for the tree the task began with.
            end: The other step, None for the newest checkpoint.

        Raises:
            UnknownTask: The task has no tree.
            GitFailed: Git could not read the checkpoints.
        """
        record = self._trees.record(task_id)
        found = await run_all(
            *(self._of_part(task_id, record, part, start, end) for part in record.parts)
        )
        return Changes(
            "".join(changes.diff for changes in found),
            tuple(path for changes in found for path in changes.changed_files),
            tuple(path for changes in found for path in changes.left_out),
        )

    async def _of_part(
        self, task_id: str, record: TaskRecord, part: Part, start: int, end: int | None
    ) -> Changes:
        reader = self._changes.reader(task_id, record, part)
        commits = await read_commits(reader.shadow, task_id, part.start)
        before, after = commits.at(start), commits.at(end)
        ours = [each for each in dict.fromkeys((before, after)) if each != part.start]
        named = await run_all(*(read_left_out(reader.shadow, each) for each in ours))
        paths = dict.fromkeys(os.fsencode(path) for each in named for path in each)
        left_out = tuple(part.prefix + shown(path) for path in paths)
        if before == after:
            return Changes(left_out=left_out)
        changes = await self._between(reader, part, before, after)
        return replace(changes, left_out=(*left_out, *changes.left_out))

    async def _between(self, reader: TreeReader, part: Part, before: str, after: str) -> Changes:
        reader.staged = f"compared-{secrets.token_hex(8)}"
        comparison = Comparison(reader, before, part.prefix, MAX_PATCH_BYTES)
        environment = {"GIT_DIR": str(reader.shadow), "GIT_INDEX_FILE": str(reader.index)}
        try:
            await run_git(["read-tree", after], reader.shadow, environment=environment)
            return await comparison.changes()
        except TooMuchOutput:
            return await comparison.changes_without_largest()
        finally:
            reader.index.unlink(missing_ok=True)
