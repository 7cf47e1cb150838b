"""Go on in the tree of a task that has ended: the next task gets it as it stands.

The tree stays where it is, ignored files and all, since paths into it are written down in virtual
environments and in the conversation: the new task's record has a link to it. Of the rest the new
task has its own: record, journal, checkpoints, private git directories. Its patch is against the
same start commits.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence

from agent.checkpoints import Checkpoints
from agent.errors import Conflict
from agent.inside import place_file
from agent.lacking import Lacking
from agent.layout import SUCCESSOR, TREE, Layout
from agent.leftovers import end_leftovers
from agent.records import PlacedFile, TaskRecord, continued_record
from agent.trees import Trees
from agent.worktrees import Worktrees, remove_tree


class Continuing:
    """Hands trees on."""

    def __init__(self, layout: Layout, trees: Trees, checkpoints: Checkpoints) -> None:
        self._layout = layout
        self._trees = trees
        self._checkpoints = checkpoints
        self._worktrees = Worktrees(layout)

    async def __call__(self, task_id: str, earlier: str, files: Sequence[PlacedFile]) -> Lacking:
        """Have a task go on in the tree of an earlier one, with more files.

        The same call again changes nothing.

        Returns:
            What the tree lacks if it was lost and came back just now.

        Raises:
            UnknownTask: The earlier task has no tree.
            BadRequest: A name or a path is none.
            Conflict: Another task goes on in that tree, a file is in the way, or the task has a
                tree made from something else.
            WorkerError: What the earlier task has left running does not end.
        """
        wanted = continued_record(self._trees.record(earlier), earlier, files)

        async def make() -> TaskRecord:
            await end_leftovers(self._layout.task(earlier))
            new = wanted.placed[len(wanted.placed) - len(files) :]
            given = dict(zip(new, files, strict=True))
            await asyncio.to_thread(self._claim, task_id, earlier, new)
            return await self._make(task_id, earlier, wanted, given)

        async with self._trees.made(task_id, wanted.request, make):
            await self._checkpoints.begin(task_id)
        return await self._checkpoints.lacking(earlier)

    def _claim(self, task_id: str, earlier: str, placed: Sequence[str]) -> None:
        """Note who goes on in the earlier task's tree; that counts from then on."""
        note = self._layout.record(earlier) / SUCCESSOR
        if not note.exists():
            for path in placed:
                if os.path.lexists(self._layout.task(earlier) / path):
                    raise Conflict(f"{path} exists in the tree: give the file another name")
        new = note.with_name(f"{SUCCESSOR}.{task_id}")
        new.write_text(task_id)
        try:
            os.link(new, note)  # whole, and only one can
        except FileExistsError:
            if note.read_text() != task_id:
                raise Conflict(f"another task goes on in the tree of task {earlier}") from None
        finally:
            new.unlink()

    async def _make(
        self, task_id: str, earlier: str, record: TaskRecord, given: Mapping[str, PlacedFile]
    ) -> TaskRecord:
        root, kept = self._layout.task(earlier), self._layout.record(task_id)
        await asyncio.to_thread(remove_tree, kept)  # of a call that was interrupted
        kept.mkdir(parents=True)
        (kept / TREE).symlink_to(root)
        try:
            for part in record.parts:
                await self._worktrees.take_over(task_id, earlier, record, part)
            for path, file in given.items():
                (root / path).unlink(missing_ok=True)  # of that call too
                place_file(root, path, file.content)
            record.save(kept)
        except BaseException:
            await asyncio.to_thread(remove_tree, kept)
            raise
        return record
