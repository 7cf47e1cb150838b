"""The states of a task's tree between its calls, as commits that nobody sees.

After each call that may have changed something, each repository's tree becomes a commit on
`refs/berth/<task>/<key>` if it differs from the commit before. Ignored files, placed files and what
came with the dependencies stay out, as they stay out of the patch. References and new objects lie
in the task's private git directory and not in the clone: there no tool can reach them by git's own
means, and neither the user's references, history, stash and index nor fetching, pruning and
collecting garbage have to do with them.

An index of its own follows the tree, so that a checkpoint reads only what changed since the last.

What is put back: content, executable bits, links and deletions of tracked and untracked files,
empty directories, and git's state of the worktree (HEAD, index, a merge under way, configuration,
the branch it is on). If an interrupted call destroyed the tree's git directory, it is made anew as
it was at the start: what the task had committed is then a change that is not committed.

What stays as an interrupted call left it: ignored files, other branches, tags and the stash, the
insides of submodules, and files at the top of a task with several repositories. Line endings follow
the tree's attributes, as in any checkout.
"""

import asyncio
import os
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agent.checkpoint_record import (
    START,
    START_NAME,
    Checkpoint,
    History,
    PartState,
    state_name,
)
from agent.errors import StorageFailed
from agent.git import run_all, run_git
from agent.git_directory import is_git_directory
from agent.journal import write_whole
from agent.layout import Layout
from agent.records import EMPTY_TREE, Part, TaskRecord
from agent.tree_reader import Found, TreeReader, covers
from agent.trees import Trees
from agent.worktree_rest import empty_directories, put_back_empty, remove_all
from agent.worktree_state import (
    Branch,
    current_branch,
    has_state,
    keep_state,
    put_back_branch,
    put_back_state,
)
from agent.worktrees import Worktrees, remove_tree

_STATES = "states"
_INDEX = "kept"
_AUTHOR = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Berth"), ("EMAIL", "berth@localhost"))
}


@dataclass(frozen=True, slots=True)
class _Place:
    """One repository of a task."""

    task: str
    part: Part
    reader: TreeReader
    private: Path | None
    """The git directory that the task uses; none in a scratch task."""

    async def git(self, *arguments: str) -> str:
        """Run git on the tree with the index of the checkpoints."""
        environment = self.reader.environment(self.reader.index) | _AUTHOR
        output = await run_git(arguments, self.reader.shadow, environment=environment)
        return output.text


class Checkpoints:
    """Keeps and puts back the trees of tasks."""

    def __init__(self, layout: Layout, trees: Trees) -> None:
        self._layout = layout
        self._trees = trees
        self._worktrees = Worktrees(layout)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def begin(self, task_id: str) -> str:
        """Have a checkpoint to go back to, at least the start; returns the key of the newest.

        Raises:
            UnknownTask: The task has no tree.
            StorageFailed: What is known of its checkpoints is damaged.
        """
        async with self._locks[task_id]:
            return (await self._history(task_id)).last.key

    async def add(self, task_id: str, key: str) -> None:
        """Make a checkpoint of what the call of this key has left.

        Raises:
            GitFailed: Git could not read the tree.
            StorageFailed: What is known of the task's checkpoints is damaged.
        """
        async with self._locks[task_id]:
            history = await self._history(task_id)
            last = history.last
            places = self._places(task_id)
            states = await run_all(
                *(self._part_added(place, last.parts[place.part.name], key) for place in places)
            )
            parts = {place.part.name: state for place, state in zip(places, states, strict=True)}
            previous = history.before(key)
            await asyncio.to_thread(self._save, task_id, History(Checkpoint(key, parts), previous))

    @asynccontextmanager
    async def held(self, task_id: str) -> AsyncIterator[History]:
        """What is known of a task's checkpoints, which stay as they are inside the block.

        Raises:
            UnknownTask: The task has no tree.
            StorageFailed: What is known of its checkpoints is damaged.
        """
        async with self._locks[task_id]:
            yield await self._history(task_id)

    async def give_up(self, task_id: str, key: str, why: str) -> None:
        """Note that there is no checkpoint after a call, so that nobody goes back to before it."""
        async with self._locks[task_id]:
            history = await self._history(task_id)
            failed = replace(history.last, key=key, failed=why)
            await asyncio.to_thread(self._save, task_id, History(failed, history.before(key)))

    async def restore(self, task_id: str, key: str) -> None:
        """Put a task's tree back to what it was before the interrupted call of this key.

        Raises:
            GitFailed: Git could not write the tree.
            StorageFailed: There is no checkpoint to go back to.
        """
        async with self._locks[task_id]:
            target = (await self._history(task_id)).before(key)
            if target.failed:
                raise StorageFailed(
                    "the call was interrupted, and the tree cannot be put back to what it was "
                    f"before: {target.failed}"
                )
            await run_all(
                *(
                    self._part_restored(place, target, target.parts[place.part.name])
                    for place in self._places(task_id)
                )
            )
            await asyncio.to_thread(self._save, task_id, History(target))

    async def _history(self, task_id: str) -> History:
        found = await asyncio.to_thread(History.load, self._layout.record(task_id))
        if found is None:
            places = self._places(task_id)
            states = await run_all(*(self._part_at_start(place) for place in places))
            parts = {place.part.name: state for place, state in zip(places, states, strict=True)}
            found = History(Checkpoint(START, parts))
            await asyncio.to_thread(self._save, task_id, found)
        return found

    def _places(self, task_id: str) -> list[_Place]:
        record = self._trees.record(task_id)
        return [self._place(task_id, record, part) for part in record.parts]

    def _place(self, task_id: str, record: TaskRecord, part: Part) -> _Place:
        reader = TreeReader(
            self._layout.shadow(task_id, part.name),
            self._layout.task(task_id) / part.directory,
            part.submodules,
            record.hidden(part),
            base=_INDEX,
            staged=_INDEX,
        )
        private = self._layout.git_directory(task_id, part.directory)
        return _Place(task_id, part, reader, None if part.start == EMPTY_TREE else private)

    async def _part_at_start(self, place: _Place) -> PartState:
        start = place.part.start
        await asyncio.to_thread(_first_index, place.reader)
        state = PartState(start, await place.git("rev-parse", f"{start}^{{tree}}"))
        # What was done before the first call that has a key is kept with the start.
        return await self._part_added(place, state, START)

    async def _part_added(self, place: _Place, before: PartState, key: str) -> PartState:
        found, empty, branch = await asyncio.gather(
            place.reader.find(),
            empty_directories(place.reader),
            self._keep_state(place, state_name(key)),
        )
        left_out = await self._staged(place, found)
        tree = await place.git("write-tree")
        commit = before.commit
        if tree != before.tree:
            commit = await self._committed(place, tree, before.commit, key)
        else:
            # Of the same call, if that was broken off after its checkpoint and then done again.
            _reference(place, key).unlink(missing_ok=True)
        return PartState(commit, tree, branch, _texts(left_out), empty)

    async def _staged(self, place: _Place, found: Found) -> tuple[bytes, ...]:
        """Bring the index up to date with what was found; returns the paths it cannot carry.

        What it cannot carry it must not have in an older form either: going back would put that
        in the place of the newer.
        """
        submodules = {os.fsencode(path) for path in place.part.submodules}
        gone = tuple(
            path for path in found.left_out if path not in submodules and not path.endswith(b"/")
        )
        found = replace(found, removed=(*found.removed, *gone))
        if found.nothing:
            return found.left_out
        refused = await place.reader.stage(found)
        if refused:
            await place.reader.stage(Found((), refused, (), ()))
        return (*found.left_out, *refused)

    async def _committed(self, place: _Place, tree: str, parent: str, key: str) -> str:
        parents = [] if parent == EMPTY_TREE else ["-p", parent]
        message = f"Task {place.task}: {key or START_NAME}"
        commit = await place.git("commit-tree", tree, *parents, "-m", message)
        await asyncio.to_thread(_write_reference, _reference(place, key), commit)
        return commit

    async def _keep_state(self, place: _Place, name: str) -> Branch | None:
        if place.private is None:
            return None
        kept = self._state(place, name)
        await asyncio.to_thread(keep_state, place.private, kept)
        return await current_branch(place.private, kept)

    async def _part_restored(self, place: _Place, target: Checkpoint, state: PartState) -> None:
        reader = place.reader
        await asyncio.to_thread(_ready_for_checkout, place)
        await place.git("read-tree", "--reset", "-u", state.commit)
        kept = tuple(os.fsencode(path) for path in state.left_out)
        found = await reader.find()
        new = [path for path in found.untracked if not covers(kept, path.rstrip(b"/"))]
        await asyncio.to_thread(remove_all, reader.worktree, new)
        empty = await empty_directories(reader)
        await asyncio.to_thread(put_back_empty, reader.worktree, empty, state.empty)
        if place.private is not None:
            kept_state = self._state(place, target.state)
            await self._put_back_git(place, place.private, kept_state, state.branch)

    async def _put_back_git(
        self, place: _Place, private: Path, kept: Path, branch: Branch | None
    ) -> None:
        if not has_state(kept):
            return
        if not is_git_directory(private):
            await self._worktrees.equip(place.task, place.part)
            return
        await asyncio.to_thread(put_back_state, kept, private)
        if branch is not None:
            await put_back_branch(private, branch)

    def _state(self, place: _Place, name: str) -> Path:
        return state_directory(self._layout, place.task, name, place.part.name)

    def _save(self, task_id: str, history: History) -> None:
        directory = self._layout.record(task_id)
        history.save(directory)
        needed = {each.state for each in (history.last, history.previous) if each is not None}
        states = directory / _STATES
        for state in list(states.iterdir()) if states.is_dir() else ():
            if state.name not in needed:
                remove_tree(state)


def state_directory(layout: Layout, task_id: str, name: str, part: str) -> Path:
    """Where git's state of a worktree at a checkpoint is kept."""
    return layout.record(task_id) / _STATES / name / part


def _reference(place: _Place, key: str) -> Path:
    return place.reader.shadow / "refs" / "berth" / place.task / (key or START_NAME)


def _texts(paths: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(os.fsdecode(path.rstrip(b"/")) for path in paths)


def _first_index(reader: TreeReader) -> None:
    """Follow the tree from the start's index on; a scratch task begins without one."""
    reader.index.with_name(f"{reader.index.name}.lock").unlink(missing_ok=True)
    reader.index.unlink(missing_ok=True)
    first = reader.shadow / "index"
    if first.exists():
        shutil.copy2(first, reader.index)


def _write_reference(reference: Path, commit: str) -> None:
    reference.parent.mkdir(parents=True, exist_ok=True)
    write_whole(reference, f"{commit}\n".encode(), durable=False)


def _ready_for_checkout(place: _Place) -> None:
    """Have a worktree where there was one, and no lock of a process that was killed."""
    worktree = place.reader.worktree
    if worktree.is_symlink() or not worktree.is_dir():
        worktree.unlink(missing_ok=True)
        worktree.mkdir(parents=True)
    place.reader.index.with_name(f"{_INDEX}.lock").unlink(missing_ok=True)
