"""One repository's part in a checkpoint: made from its tree, and its tree put back to it."""

import asyncio
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from agent.checkpoint_record import START, START_NAME, Checkpoint, PartState, state_name
from agent.git_directory import is_git_directory
from agent.held_entries import put_back_held, with_held
from agent.journal import write_whole
from agent.lacking import Lacking, lacking_from, message
from agent.layout import Layout
from agent.patch import shown
from agent.places import Place
from agent.records import EMPTY_TREE
from agent.tree_reader import Found, TreeReader, covers
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


class PartStates:
    """Makes and puts back the states of repositories."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._worktrees = Worktrees(layout)

    async def at_start(self, place: Place) -> PartState:
        """The state before the first call that has a key.

        Raises:
            GitFailed: Git could not read the tree.
        """
        start = place.part.start
        await asyncio.to_thread(_first_index, place.reader)
        state = PartState(start, await place.git("rev-parse", f"{start}^{{tree}}"))
        # What was done before the first call that has a key is kept with the start.
        return await self.added(place, state, START)

    async def added(self, place: Place, before: PartState, key: str) -> PartState:
        """The state that the call of this key has left.

        Raises:
            GitFailed: Git could not read the tree.
        """
        found, empty, branch = await asyncio.gather(
            place.reader.find(),
            empty_directories(place.reader),
            self.keep_git(place, state_name(key)),
        )
        left_out = await self._staged(place, found)
        named = _texts(left_out)
        if found.removed:
            # What a removed file leaves empty shows only to an index without the file.
            empty = await empty_directories(place.reader)
        staged = await place.git("write-tree")
        tree = await with_held(place, before.tree, staged, left_out)
        commit = before.commit
        if (tree, named) != (before.tree, before.left_out):
            commit = await self._committed(place, tree, before, named, key)
        else:
            # Of the same call, if that was broken off after its checkpoint and then done again.
            _reference(place, key).unlink(missing_ok=True)
        return PartState(commit, tree, branch, named, empty, "" if staged == tree else staged)

    async def restored(self, place: Place, target: Checkpoint, state: PartState) -> Lacking:
        """Put a tree back to what it was at a checkpoint, of which the state is this one's part.

        What the checkpoint could not carry stays as it is, if it is there.

        Returns:
            What of it is not there any more.

        Raises:
            GitFailed: Git could not write the tree.
        """
        reader = place.reader
        await asyncio.to_thread(_ready_for_checkout, place)
        await place.git("read-tree", "--reset", "-u", state.staged or state.commit)
        back: tuple[bytes, ...] = ()
        if state.staged:
            back = await put_back_held(place, state.tree, state.staged)
        kept = tuple(os.fsencode(path) for path in state.left_out)
        found = await reader.find()
        new = [path for path in found.untracked if not covers(kept, path.rstrip(b"/"))]
        await asyncio.to_thread(remove_all, reader.worktree, new)
        empty = await empty_directories(reader)
        await asyncio.to_thread(put_back_empty, reader.worktree, empty, state.empty)
        if place.private is not None:
            kept_state = self._kept(place, target.state)
            await self._put_back_git(place, place.private, kept_state, state.branch)
        if target.came:
            return Lacking()
        return await asyncio.to_thread(_lost, place, kept, back)

    async def lacking(self, place: Place, state: PartState) -> Lacking:
        """What a repository lacks that was put to a state from elsewhere.

        Raises:
            GitFailed: Git could not read the commit.
        """
        shadow = place.reader.shadow
        return await lacking_from(shadow, state.commit, state.left_out, place.part.prefix)

    async def keep_git(self, place: Place, name: str) -> Branch | None:
        """Keep what git knows of a worktree under a checkpoint's name; returns its branch."""
        if place.private is None:
            return None
        kept = self._kept(place, name)
        await asyncio.to_thread(keep_state, place.private, kept)
        return await current_branch(place.private, kept)

    async def copied(self, place: Place, name: str, room: Path) -> None:
        """Copy what leaves the container of git's state at a checkpoint to `room`."""
        await asyncio.to_thread(_copy_state, self._kept(place, name), room)

    def forget_others(self, task_id: str, needed: Collection[str]) -> None:
        """Delete what is kept under the names of checkpoints that nobody goes back to."""
        states = self._layout.record(task_id) / _STATES
        for state in list(states.iterdir()) if states.is_dir() else ():
            if state.name not in needed:
                remove_tree(state)

    async def _staged(self, place: Place, found: Found) -> tuple[bytes, ...]:
        """Bring the index up to date with what was found; returns the paths it cannot carry.

        What it cannot carry it must not have in an older form either: going back would put that
        in the place of the newer. The commit has it; see `held_entries`.
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

    async def _committed(
        self, place: Place, tree: str, before: PartState, left_out: Sequence[str], key: str
    ) -> str:
        parents = [] if before.commit == EMPTY_TREE else ["-p", before.commit]
        text = message(f"Task {place.task}: {key or START_NAME}", left_out)
        commit = await place.git("commit-tree", tree, *parents, stdin=text.encode())
        await asyncio.to_thread(_write_reference, _reference(place, key), commit)
        return commit

    async def _put_back_git(
        self, place: Place, private: Path, kept: Path, branch: Branch | None
    ) -> None:
        if not has_state(kept):
            return
        if not is_git_directory(private):
            await self._worktrees.equip(place.task, place.part)
            return
        await asyncio.to_thread(put_back_state, kept, private)
        if branch is not None:
            await put_back_branch(private, branch)

    def _kept(self, place: Place, name: str) -> Path:
        return state_directory(self._layout, place.task, name, place.part.name)


def state_directory(layout: Layout, task_id: str, name: str, part: str) -> Path:
    """Where git's state of a worktree at a checkpoint is kept."""
    return layout.record(task_id) / _STATES / name / part


def _reference(place: Place, key: str) -> Path:
    return place.reader.shadow / "refs" / "berth" / place.task / (key or START_NAME)


def _copy_state(kept: Path, room: Path) -> None:
    """Copy what of git's state leaves the container: HEAD and the index."""
    room.mkdir(parents=True)
    for name in ("HEAD", "index"):
        path = kept / name
        if path.is_file() and not path.is_symlink():
            # Git never writes into these but puts others in their place.
            os.link(path, room / name)


def _texts(paths: Sequence[bytes]) -> tuple[str, ...]:
    """The paths as text, without what lies in others of them."""
    named = {os.fsdecode(path.rstrip(b"/")) for path in paths}
    return tuple(
        sorted(path for path in named if named.isdisjoint(map(str, PurePosixPath(path).parents)))
    )


def _lost(place: Place, left_out: Sequence[bytes], back: Sequence[bytes]) -> Lacking:
    """What of the things that were left out is not in the tree, or is as it was earlier."""
    worktree, prefix = place.reader.worktree, place.part.prefix
    missing = [path for path in left_out if not os.path.lexists(worktree / os.fsdecode(path))]
    return Lacking(
        tuple(prefix + shown(path) for path in back),
        tuple(prefix + shown(path) for path in missing),
    )


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


def _ready_for_checkout(place: Place) -> None:
    """Have a worktree where there was one, and no lock of a process that was killed."""
    worktree = place.reader.worktree
    if worktree.is_symlink() or not worktree.is_dir():
        worktree.unlink(missing_ok=True)
        worktree.mkdir(parents=True)
    place.reader.index.with_name(f"{place.reader.index.name}.lock").unlink(missing_ok=True)
