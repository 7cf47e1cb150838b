"""Keep and put back what git knows of a worktree beside its files: HEAD, index, a merge under way.

Of the tree's git directory only that is copied, and its configuration. Objects and reflogs only
grow, and references other than the branch it is on are left to the task.
"""

import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.git import run_git
from agent.git_directory import is_git_directory
from agent.worktrees import remove_tree

_INDEX = "index"
_SHARED_INDEX = "sharedindex."
_KEPT = frozenset(
    {_INDEX, "config", "config.worktree", "rebase-merge", "rebase-apply", "sequencer"}
)
_LOCK = ".lock"
_REFERENCE = "ref: "


@dataclass(frozen=True, slots=True)
class Branch:
    """The branch a worktree is on, and its commit; without a commit it is yet to be born."""

    name: str
    commit: str


def keep_state(private: Path, kept: Path) -> None:
    """Copy the state of a worktree from its git directory; nothing if that is none."""
    remove_tree(kept)
    kept.mkdir(parents=True)
    if is_git_directory(private):
        _copy(_state_in(private), kept)


def has_state(kept: Path) -> bool:
    """True if there was a git directory when the state was kept."""
    return kept.is_dir() and any(os.scandir(kept))


def put_back_state(kept: Path, private: Path) -> None:
    """Make the state of a worktree what it was; locks of killed processes go."""
    for path in _state_in(private):
        remove_tree(path)
    for lock in private.glob(f"*{_LOCK}"):
        remove_tree(lock)
    for directory, _, files in os.walk(private / "refs"):
        for name in files:
            if name.endswith(_LOCK):
                Path(directory, name).unlink()
    _copy(kept.iterdir(), private)


async def current_branch(private: Path, kept: Path) -> Branch | None:
    """The branch that a worktree with this kept state is on; None if its HEAD is a commit."""
    file = kept / "HEAD"
    if file.is_symlink() or not file.is_file():
        return None
    head = file.read_text(errors="surrogateescape").strip()
    name = head.removeprefix(_REFERENCE)
    if name == head or not name.startswith("refs/heads/"):
        return None
    return Branch(name, await _commit(private, name))


async def put_back_branch(private: Path, branch: Branch) -> None:
    """Have a branch point again where it did."""
    if await _commit(private, branch.name) == branch.commit:
        return
    change = [branch.name, branch.commit] if branch.commit else ["-d", branch.name]
    await run_git(["update-ref", *change], private, environment={"GIT_DIR": str(private)})


async def _commit(private: Path, name: str) -> str:
    arguments = ["rev-parse", "--quiet", "--verify", name]
    found = await run_git(arguments, private, environment={"GIT_DIR": str(private)}, check=False)
    return found.text if found.code == 0 else ""


def _state_in(private: Path) -> list[Path]:
    """What belongs to the state; git writes the names of a command under way in capitals.

    A task can put anything else into a git directory, of any size.
    """
    return [
        path
        for path in private.iterdir()
        if path.name in _KEPT or path.name.isupper() or path.name.startswith(_SHARED_INDEX)
    ]


def _copy(paths: Iterable[Path], target: Path) -> None:
    for path in paths:
        if path.name.endswith(_LOCK):
            continue
        copy = target / path.name
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            copy.mkdir()
            _copy(path.iterdir(), copy)
        elif path.name == _INDEX and stat.S_ISREG(mode):
            # Git never writes into an index but puts another in its place.
            os.link(path, copy, follow_symlinks=False)
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            shutil.copy2(path, copy, follow_symlinks=False)
