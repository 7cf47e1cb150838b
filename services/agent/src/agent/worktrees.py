"""Make the worktree of one repository of a task, and the private git directory to compare it by.

Both are made without heeding the clone's configuration, which earlier tasks could write to.
"""

import asyncio
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agent.errors import GitFailed, UnknownCommit
from agent.git import run_git
from agent.git_directory import Origin, is_git_directory, make_git_directory, read_origin
from agent.layout import Layout
from agent.records import EMPTY_TREE, Part, TaskRecord

SUBMODULE_MODE = b"160000"
# Checking files out on both cores pays from a few hundred on.
_PARALLEL = ("-c", "checkout.workers=2", "-c", "checkout.thresholdForParallelism=400")


class Worktrees:
    """Makes worktrees from clones."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def add(self, task_id: str, record: TaskRecord, part: Part) -> Part:
        """Make a part's worktree at its start; returns the part with its submodules.

        Raises:
            UnknownCommit: The clone lacks the commit.
            GitFailed: Git could not write the tree.
        """
        shadow = self._layout.shadow(task_id, part.name)
        if part.start == EMPTY_TREE:
            _make_shadow(shadow, "ref: refs/heads/none\n", None)
            self.hide(task_id, record, part)
            return part
        clone = self._layout.clone(part.name)
        _make_shadow(shadow, f"{part.start}\n", clone / "objects")
        self.hide(task_id, record, part)
        directory = self._layout.task(task_id) / part.directory
        directory.mkdir(exist_ok=True)
        listed = asyncio.create_task(_submodules(shadow, part.start))
        origin = asyncio.create_task(read_origin(clone))
        try:
            await _check_out(shadow, directory, part)
        finally:
            await asyncio.gather(listed, origin, return_exceptions=True)
        self._equip(task_id, part, origin.result())
        return replace(part, submodules=listed.result())

    async def equip(self, task_id: str, part: Part) -> None:
        """Give a worktree its git directory anew; what is in its place goes."""
        origin = await read_origin(self._layout.clone(part.name))
        directory = self._layout.git_directory(task_id, part.directory)
        await asyncio.to_thread(remove_tree, directory)
        self._equip(task_id, part, origin)

    async def take_over(self, task_id: str, earlier: str, record: TaskRecord, part: Part) -> None:
        """Make a private git directory for a task that goes on in an earlier one's worktree."""
        shadow = self._layout.shadow(task_id, part.name)
        if part.start == EMPTY_TREE:
            _make_shadow(shadow, "ref: refs/heads/none\n", None)
            self.hide(task_id, record, part)
            return
        _make_shadow(shadow, f"{part.start}\n", self._layout.clone(part.name) / "objects")
        self.hide(task_id, record, part)
        # With the stat data, so that git need not read every file again.
        index = self._layout.shadow(earlier, part.name) / "index"
        await asyncio.to_thread(shutil.copy2, index, shadow / "index")
        private = self._layout.git_directory(task_id, part.directory)
        if is_git_directory(private):
            await set_exclude(private, shadow)

    def hide(self, task_id: str, record: TaskRecord, part: Part) -> None:
        """Have git ignore what stays out of the part's patch."""
        lines = "".join(f"/{_literal(path)}\n" for path in record.hidden(part))
        exclude = self._layout.shadow(task_id, part.name) / "info" / "exclude"
        exclude.write_text(lines, errors="surrogateescape")

    def _equip(self, task_id: str, part: Part, origin: Origin) -> None:
        shadow = self._layout.shadow(task_id, part.name)
        make_git_directory(
            self._layout.git_directory(task_id, part.directory),
            origin,
            part.start,
            objects=self._layout.clone(part.name) / "objects",
            exclude=shadow / "info" / "exclude",
            index=shadow / "index",
        )


async def set_exclude(private: Path, shadow: Path) -> None:
    """Have a tree's own git directory ignore what stays out of the patch."""
    path = str(shadow / "info" / "exclude")
    await run_git(
        ["config", "--file", str(private / "config"), "core.excludesFile", path],
        private,
        environment={"GIT_DIR": os.devnull},
        check=False,  # a task can have made its configuration unreadable
    )


def remove_tree(directory: Path) -> None:
    """Delete a directory with all that is in it, or whatever else is in its place."""
    # Asked first: what is no directory could be a pipe, which opening would wait for.
    if directory.is_dir() and not directory.is_symlink():
        with suppress(FileNotFoundError):
            shutil.rmtree(directory)
    else:
        directory.unlink(missing_ok=True)


def _make_shadow(shadow: Path, head: str, alternates: Path | None) -> None:
    for directory in ("objects/info", "refs", "info"):
        (shadow / directory).mkdir(parents=True)
    (shadow / "HEAD").write_text(head)
    (shadow / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = false\n")
    if alternates is not None:
        (shadow / "objects" / "info" / "alternates").write_text(f"{alternates}\n")


async def _require_commit(shadow: Path, part: Part) -> None:
    found = await run_git(
        ["cat-file", "-e", f"{part.start}^{{commit}}"],
        shadow,
        environment={"GIT_DIR": str(shadow)},
        check=False,
    )
    if found.code != 0:
        raise UnknownCommit(f"the clone of {part.name} has no commit {part.start}")


async def _check_out(shadow: Path, directory: Path, part: Part) -> None:
    environment = {"GIT_DIR": str(shadow), "GIT_WORK_TREE": str(directory)}
    arguments = [*_PARALLEL, "read-tree", "-m", "-u", f"{part.start}^{{commit}}"]
    try:
        await run_git(arguments, directory, environment=environment)
    except GitFailed:
        await _require_commit(shadow, part)
        raise


async def _submodules(shadow: Path, start: str) -> tuple[str, ...]:
    listed = await run_git(["ls-tree", "-r", "-z", start], shadow, environment=_alone(shadow))
    entries = listed.stdout.split(b"\0")
    return tuple(
        os.fsdecode(entry.partition(b"\t")[2])
        for entry in entries
        if entry.startswith(SUBMODULE_MODE)
    )


def _alone(shadow: Path) -> dict[str, str]:
    return {"GIT_DIR": str(shadow)}


def _literal(path: str) -> str:
    """A path as an ignore pattern that matches only itself."""
    escaped = "".join(f"\\{char}" if char in "\\*?[" else char for char in path)
    stripped = escaped.rstrip(" ")
    return stripped + "\\ " * (len(escaped) - len(stripped))
