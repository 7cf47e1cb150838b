"""Make a task's tree from what another task's tree was after one of its steps.

The tree starts from the parent's start commits and then gets the parent's checkpoint: so patch and
checkpoints are as in any task. What no checkpoint has, the fork has not either: ignored files, and
what came with the dependencies; what a checkpoint could not carry is named. The files the caller
gave and kept outputs come along as they are now.

What git knows of the worktree (HEAD, index, branch, configuration, the task's own commits) is kept
for the newest two checkpoints only. At an older one HEAD is at the start commit, and all that the
parent had done is a change that is not committed.
"""

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.checkpoint_record import Checkpoint, History, PartState
from agent.checkpoint_refs import read_commits
from agent.checkpoints import Checkpoints
from agent.errors import StorageFailed
from agent.git import run_all, run_git
from agent.git_directory import copy_history, is_git_directory
from agent.inside import keep_output, place_file
from agent.lacking import Lacking, lacking_from, read_left_out, together
from agent.layout import OUTPUTS, PRIVATE, Layout
from agent.part_states import state_directory
from agent.records import EMPTY_TREE, Part, TaskRecord, forked_record
from agent.trees import Trees
from agent.worktree_rest import put_back_empty
from agent.worktree_state import has_state, put_back_branch, put_back_state
from agent.worktrees import set_exclude

_INDEX = "forked"


@dataclass(frozen=True, slots=True)
class _Fork:
    """Which tree is made from which."""

    task: str
    parent: str
    step: int
    kept: Checkpoint | None
    """The checkpoint at that step, if it is one of those of which git's state is kept."""


class Forking:
    """Makes forks."""

    def __init__(self, layout: Layout, trees: Trees, checkpoints: Checkpoints) -> None:
        self._layout = layout
        self._trees = trees
        self._checkpoints = checkpoints

    async def __call__(self, task_id: str, parent: str, step: int) -> Lacking:
        """Make a task's tree from a parent's checkpoint; the parent may be at work meanwhile.

        The same call again changes nothing.

        Args:
            task_id: The new task.
            parent: The task to fork.
            step: The step of the parent after which its tree is taken; 0 for its beginning.

        Returns:
            What of the parent's tree the checkpoint could not carry.

        Raises:
            UnknownTask: The parent has no tree.
            Conflict: The task has a tree made from something else.
            StorageFailed: There is no checkpoint after that step.
            GitFailed: Git could not make the tree.
        """
        wanted = forked_record(self._trees.record(parent), parent, step)

        async def make() -> TaskRecord:
            async with self._checkpoints.held(parent) as history:
                fork = _Fork(task_id, parent, step, _checkpoint_at(history, step))

                async def fill(made: TaskRecord) -> None:
                    for part in made.parts:
                        await self._fill(fork, part)
                    await asyncio.to_thread(self._copy_ours, fork, made.placed)

                return await self._trees.make(task_id, wanted, fill)

        async with self._trees.made(task_id, wanted.request, make):
            await self._checkpoints.begin(task_id)
        return together(
            await run_all(*(self._lacking(parent, step, part) for part in wanted.parts))
        )

    async def _lacking(self, parent: str, step: int, part: Part) -> Lacking:
        shadow = self._layout.shadow(parent, part.name)
        commit = (await read_commits(shadow, parent, part.start)).at(step)
        # The start is the user's commit, not ours.
        left_out = () if commit == part.start else await read_left_out(shadow, commit)
        return await lacking_from(shadow, commit, left_out, part.prefix)

    async def _fill(self, fork: _Fork, part: Part) -> None:
        """Bring one repository's worktree from its start to the checkpoint."""
        shadow = self._layout.shadow(fork.task, part.name)
        theirs = self._layout.shadow(fork.parent, part.name)
        worktree = self._layout.task(fork.task) / part.directory
        commits = await read_commits(theirs, fork.parent, part.start)
        index = shadow / _INDEX
        if part.start != EMPTY_TREE:
            await asyncio.to_thread(shutil.copy2, shadow / "index", index)
        environment = {
            "GIT_DIR": str(shadow),
            "GIT_WORK_TREE": str(worktree),
            "GIT_INDEX_FILE": str(index),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(theirs / "objects"),
        }
        arguments = ["read-tree", "-m", "-u", part.start, commits.at(fork.step)]
        await run_git(arguments, worktree, environment=environment)
        index.unlink(missing_ok=True)
        if fork.kept is not None:
            state = fork.kept.parts[part.name]
            await asyncio.to_thread(put_back_empty, worktree, (), state.empty)
            await self._copy_git(fork, part, fork.kept, state)

    async def _copy_git(
        self, fork: _Fork, part: Part, checkpoint: Checkpoint, state: PartState
    ) -> None:
        theirs = self._layout.git_directory(fork.parent, part.directory)
        kept = state_directory(self._layout, fork.parent, checkpoint.state, part.name)
        if part.start == EMPTY_TREE or not is_git_directory(theirs) or not has_state(kept):
            return
        private = self._layout.git_directory(fork.task, part.directory)
        await asyncio.to_thread(copy_history, theirs, private)
        await asyncio.to_thread(put_back_state, kept, private)
        await set_exclude(private, self._layout.shadow(fork.task, part.name))
        if state.branch is not None:
            await put_back_branch(private, state.branch)

    def _copy_ours(self, fork: _Fork, placed: Sequence[str]) -> None:
        """Copy what lies in the tree without being part of the work."""
        source, target = self._layout.task(fork.parent), self._layout.task(fork.task)
        for path in placed:
            if _is_file(source / path):
                place_file(target, path, (source / path).read_bytes())
        outputs = source / PRIVATE / OUTPUTS
        if outputs.is_dir() and not outputs.is_symlink():
            for entry in os.scandir(outputs):
                if entry.is_file(follow_symlinks=False):
                    keep_output(target, entry.name, Path(entry.path).read_bytes())


def _checkpoint_at(history: History, step: int) -> Checkpoint | None:
    """The newest checkpoint at or before a step, if the history has it.

    Raises:
        StorageFailed: The tree after that step could not be kept.
    """
    for checkpoint in (history.last, history.previous):
        if checkpoint is None or int(checkpoint.key or 0) > step:
            continue
        if checkpoint.failed:
            raise StorageFailed(
                f"there is no checkpoint after step {checkpoint.key}: {checkpoint.failed}"
            )
        return checkpoint
    return None


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
