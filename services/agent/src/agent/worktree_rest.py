"""What git does not put back in a worktree by itself: new files and empty directories."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from agent.git import run_git
from agent.tree_reader import TreeReader
from agent.worktrees import remove_tree


def remove_all(worktree: Path, paths: Sequence[bytes]) -> None:
    """Delete files, whole repositories among them."""
    for path in paths:
        full = worktree / os.fsdecode(path)
        if full.is_dir() and not full.is_symlink():
            remove_tree(full)
        else:
            full.unlink(missing_ok=True)


async def empty_directories(reader: TreeReader) -> tuple[str, ...]:
    """Directories without files, which git does not tell of, each as the deepest of its kind."""
    listed = await run_git(
        ["ls-files", "-z", "--others", "--directory", "--exclude-standard"],
        reader.shadow,
        environment=reader.environment(reader.index),
    )
    directories = [line.rstrip(b"/") for line in listed.stdout.split(b"\0") if line.endswith(b"/")]
    return await asyncio.to_thread(_empty_among, reader.worktree, directories)


def _empty_among(worktree: Path, directories: Sequence[bytes]) -> tuple[str, ...]:
    found = []
    for directory in directories:
        for path, inner, files in os.walk(worktree / os.fsdecode(directory)):
            if ".git" in inner:
                inner.clear()  # a repository of its own
            elif not inner and not files:
                found.append(os.path.relpath(path, worktree))
    return tuple(found)


def put_back_empty(worktree: Path, now: Sequence[str], then: Sequence[str]) -> None:
    """Have the empty directories of a checkpoint again, and no others."""
    kept = set(then)
    for name in now:
        directory = worktree / name
        while directory != worktree and os.path.relpath(directory, worktree) not in kept:
            try:
                directory.rmdir()
            except OSError:  # it has other things in it
                break
            directory = directory.parent
    for name in then:
        (worktree / name).mkdir(parents=True, exist_ok=True)
