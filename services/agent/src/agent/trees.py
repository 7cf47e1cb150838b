"""A task's tree: worktrees at their start commits, and the files its caller gave."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from agent.errors import Conflict, UnknownTask
from agent.git import run_all
from agent.inside import place_file
from agent.layout import Layout
from agent.records import PlacedFile, Start, TaskRecord, new_record
from agent.worktrees import Worktrees, remove_tree

Make = Callable[[], Awaitable[TaskRecord]]
Fill = Callable[[TaskRecord], Awaitable[None]]


class Trees:
    """Makes and finds the trees of tasks."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._worktrees = Worktrees(layout)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def root(self, task_id: str) -> Path:
        """The root of a prepared task's tree.

        Raises:
            UnknownTask: It was never prepared.
        """
        self.record(task_id)
        return self._layout.task(task_id)

    def record(self, task_id: str) -> TaskRecord:
        """What a prepared task's tree was made from.

        Raises:
            UnknownTask: It was never prepared.
        """
        record = TaskRecord.load(self._layout.record(task_id))
        if record is None:
            raise UnknownTask(f"no tree was prepared for task {task_id}")
        return record

    @asynccontextmanager
    async def prepared(
        self, task_id: str, start: Sequence[Start], files: Sequence[PlacedFile]
    ) -> AsyncIterator[TaskRecord]:
        """Make a task's tree, and hold off other calls for this task inside the block.

        The same call again changes nothing. What an interrupted call left is cleared away.

        Raises:
            BadRequest: A name, a path or a commit is none.
            UnknownCommit: A start commit is not in its clone.
            Conflict: The task has a tree made from something else, or a file is in the way.
            GitFailed: Git could not make the tree.
        """
        wanted = new_record(start, files)

        async def fill(made: TaskRecord) -> None:
            for file, path in zip(files, made.placed, strict=True):
                place_file(self._layout.task(task_id), path, file.content)

        async def make() -> TaskRecord:
            return await self.make(task_id, wanted, fill)

        async with self.made(task_id, wanted.request, make) as record:
            yield record

    @asynccontextmanager
    async def made(self, task_id: str, request: str, make: Make) -> AsyncIterator[TaskRecord]:
        """See that a task has a tree, and hold off other calls for this task inside the block.

        Raises:
            Conflict: The task has a tree that was made for another request.
        """
        async with self._locks[task_id]:
            existing = TaskRecord.load(self._layout.record(task_id))
            if existing is None:
                existing = await make()
            elif existing.request != request:
                raise Conflict(f"task {task_id} has a tree that was made from something else")
            yield existing

    def keep(self, task_id: str, record: TaskRecord) -> None:
        """Replace what is known of a task."""
        for part in record.parts:
            self._worktrees.hide(task_id, record, part)
        record.save(self._layout.record(task_id))

    async def clear_interrupted(self) -> None:
        """Remove trees whose making was interrupted; to be called before any is made."""
        tasks = self._layout.workspace / "tasks"
        if not tasks.is_dir():
            return
        for root in list(tasks.iterdir()):
            if not (self._layout.workspace / "records" / root.name / "task.json").is_file():
                await asyncio.to_thread(remove_tree, root)

    async def make(self, task_id: str, record: TaskRecord, fill: Fill) -> TaskRecord:
        """Make a tree at its start; to be called by what is given to `made`.

        Args:
            task_id: The task.
            record: What the tree is to be made from.
            fill: Puts the rest into the tree before it counts as made.
        """
        kept = self._layout.record(task_id)
        await asyncio.to_thread(remove_tree, kept)
        root = self._layout.task(task_id)  # asked only now: what was there may have led elsewhere
        await asyncio.to_thread(remove_tree, root)
        kept.mkdir(parents=True)
        root.mkdir(parents=True)
        try:
            parts = await run_all(
                *(self._worktrees.add(task_id, record, part) for part in record.parts)
            )
            made = replace(record, parts=tuple(parts))
            await fill(made)
            made.save(kept)
        except BaseException:
            await asyncio.to_thread(_clear, root, kept)
            raise
        return made


def _clear(*directories: Path) -> None:
    for directory in directories:
        remove_tree(directory)
