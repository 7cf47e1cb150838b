"""Entries of earlier checkpoints that stay in the next, since it cannot carry what is there now.

A file that has grown too large or cannot be read any more is not deleted: a tree made of the
checkpoint has it as it was when it could be read last. The index that follows the tree does not
have these entries: going back in the same tree would put them in the place of what is there.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.git import run_git
from agent.patch import Entry, parse
from agent.places import Place
from agent.tree_reader import Found, TreeReader, covers

_INDEX = "held"


async def with_held(place: Place, before: str, staged: str, left_out: Sequence[bytes]) -> str:
    """The tree of a checkpoint.

    Args:
        place: The repository.
        before: The tree of the checkpoint before.
        staged: The tree of the index.
        left_out: Paths that could not be carried.

    Raises:
        GitFailed: Git could not write it.
    """
    if not left_out or before == staged:
        return staged
    covering = [path.rstrip(b"/") for path in left_out]
    gone = [
        each for each in await _dropped(place, before, staged) if covers(covering, each.paths[0])
    ]
    held = await asyncio.to_thread(_still_there, place.reader.worktree, gone)
    if not held:
        return staged
    reader = replace(place.reader, staged=_INDEX)
    try:
        await reader.stage(Found((), (), (), ()))
        await reader.restore([each.before for each in held])
        written = await run_git(
            ["write-tree"], reader.shadow, environment=reader.environment(reader.index)
        )
    finally:
        await asyncio.to_thread(reader.index.unlink, missing_ok=True)
    return written.text


async def put_back_held(place: Place, tree: str, staged: str) -> tuple[bytes, ...]:
    """Write held entries where the tree has nothing any more; returns their paths.

    Args:
        place: The repository, whose index has the staged tree.
        tree: The tree of the checkpoint.
        staged: The same without what is held.

    Raises:
        GitFailed: Git could not write them.
    """
    reader = place.reader
    held = await _dropped(place, tree, staged)
    there = await asyncio.to_thread(_still_there, reader.worktree, held)
    missing = [each for each in held if each not in there]
    if missing:
        await reader.restore([each.before for each in missing])
        await _check_out(reader, [each.paths[0] for each in missing])
    return tuple(each.paths[0] for each in missing)


async def _dropped(place: Place, before: str, after: str) -> list[Entry]:
    """The entries of one tree whose paths another does not have."""
    listed = await run_git(
        ["diff-tree", "-r", "-z", "--no-renames", before, after],
        place.reader.shadow,
        environment={"GIT_DIR": str(place.reader.shadow)},
    )
    return [each for each in parse(listed.stdout).entries if each.state == "D"]


def _still_there(worktree: Path, held: Sequence[Entry]) -> list[Entry]:
    """Those whose path has something, or lies where nobody can look."""
    return [each for each in held if not _is_gone(worktree / os.fsdecode(each.paths[0]))]


def _is_gone(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


async def _check_out(reader: TreeReader, paths: Sequence[bytes]) -> None:
    await run_git(
        ["checkout-index", "--force", "-z", "--stdin"],
        reader.worktree,
        environment=reader.environment(reader.index),
        stdin=b"".join(path + b"\0" for path in paths),
    )
