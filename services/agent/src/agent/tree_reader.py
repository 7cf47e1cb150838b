"""Compare a task's tree with its start, through a git directory that the task does not use.

Neither the task's index, history or stash nor any configuration or hook of its repository takes
part. The start's index is kept as it is but for stat data, and each reading works on a copy, so
that what is found depends on the tree alone and costs one `stat` a file beyond its changes.
"""

import asyncio
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import GitFailed
from agent.git import GitOutput, run_git
from agent.layout import PRIVATE

MAX_FILE_BYTES = 32 * 1024 * 1024
"""A changed file larger than this is left out."""
MAX_REFUSALS = 50
"""When git refused so many files of one tree, the rest is left out with them."""
_PRIVATE = os.fsencode(PRIVATE)
_UNREADABLE = re.compile(rb"^warning: could not open directory '(.*?)': ", re.MULTILINE | re.DOTALL)
_UNSEARCHABLE = re.compile(rb"^(?!warning: |error: |fatal: )(.*): Permission denied$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Found:
    """Paths that differ from the start, each relative to the worktree."""

    changed: tuple[bytes, ...]
    removed: tuple[bytes, ...]
    untracked: tuple[bytes, ...]
    left_out: tuple[bytes, ...]

    @property
    def nothing(self) -> bool:
        """True if there is nothing to stage."""
        return not self.changed and not self.removed


@dataclass(slots=True)
class TreeReader:
    """Reads the worktree of one repository of one task.

    Args:
        shadow: The private git directory.
        worktree: What is compared. If it is no directory any more, all its files are gone.
        submodules: Paths that are submodules at the start.
        hidden: Untracked files and directories that stay out.
        base: The name of the index that the tree is compared with.
        staged: The name of the index that `stage` leaves; it may be the base itself.
    """

    shadow: Path
    worktree: Path
    submodules: Sequence[str]
    hidden: Sequence[str]
    base: str = "index"
    staged: str = "work"
    _hidden: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._hidden = tuple(os.fsencode(path) for path in self.hidden)

    @property
    def index(self) -> Path:
        """The index that `stage` leaves."""
        return self.shadow / self.staged

    async def find(self, *, collapse: bool = False) -> Found:
        """The paths that differ; with `collapse` an untracked directory counts as one path."""
        untracked_files = "normal" if collapse else "all"
        output = await run_git(
            ["status", "--porcelain=v1", "-z", f"--untracked-files={untracked_files}",
             "--no-renames", "--ignore-submodules=dirty"],
            self.shadow,
            # The one command that may refresh stat data: else each reading would read all files
            # again that were written anew with the same content.
            environment=self.environment(self.shadow / self.base) | {"GIT_OPTIONAL_LOCKS": "1"},
        )  # fmt: skip
        return await asyncio.to_thread(self._sort, output)

    async def stage(self, found: Found) -> tuple[bytes, ...]:
        """Make an index of the base and what was found; returns the paths git refused."""
        await asyncio.to_thread(self._copy_index)
        if found.removed:
            await self._update_index(
                "--force-remove", "-z", "--stdin", stdin=_joined(found.removed)
            )
        return await self._add(found.changed)

    async def restore(self, entries: Sequence[bytes]) -> None:
        """Put entries, as `update-index --index-info` takes them, into the staged index."""
        await self._update_index("-z", "--index-info", stdin=_joined(entries))

    def _copy_index(self) -> None:
        self.index.with_name(f"{self.staged}.lock").unlink(missing_ok=True)  # of a killed worker
        if self.staged == self.base:
            return
        try:
            shutil.copy2(self.shadow / self.base, self.index)
        except FileNotFoundError:  # a scratch task starts without one
            self.index.unlink(missing_ok=True)

    async def _add(self, paths: Sequence[bytes]) -> tuple[bytes, ...]:
        """Add files to the staged index; returns those that git refused.

        Git skips some files with a warning. At others it gives up and nothing is added: then
        those before it are added, and the rest is tried without it.
        """
        refused: list[bytes] = []
        rest = list(paths)
        while rest:
            output = await self._try_to_add(rest)
            taken = _reported(output.stdout, rest)
            if output.code == 0:
                return (*refused, *(path for path in rest if path not in taken))
            end = max((at for at, path in enumerate(rest, 1) if path in taken), default=0)
            if end and (await self._try_to_add(rest[:end])).code != 0:
                raise GitFailed(f"git update-index failed: {output.stderr}")
            refused += [path for path in rest[: end + 1] if path not in taken]
            rest = rest[end + 1 :]
            if len(refused) > MAX_REFUSALS:
                return (*refused, *rest)
        return tuple(refused)

    async def _try_to_add(self, paths: Sequence[bytes]) -> GitOutput:
        return await self._update_index(
            "--add", "--remove", "--replace", "--verbose", "-z", "--stdin",
            stdin=_joined(paths), check=False,
        )  # fmt: skip

    async def _update_index(self, *options: str, stdin: bytes, check: bool = True) -> GitOutput:
        environment = self.environment(self.index)
        arguments = ["update-index", *options]
        return await run_git(
            arguments, self.shadow, environment=environment, stdin=stdin, check=check
        )

    def environment(self, index: Path) -> dict[str, str]:
        """What has git work on the tree with an index."""
        worktree = self.worktree
        if not worktree.is_dir() or worktree.is_symlink():
            worktree = self.shadow / "nothing"
            worktree.mkdir(exist_ok=True)
        return {
            "GIT_DIR": str(self.shadow),
            "GIT_WORK_TREE": str(worktree),
            "GIT_INDEX_FILE": str(index),
        }

    def _sort(self, output: GitOutput) -> Found:
        changed: list[bytes] = []
        removed: list[bytes] = []
        untracked: list[bytes] = []
        left_out = [path for path in map(os.fsencode, self.submodules) if self._has_content(path)]
        filled = tuple(left_out)
        for state, path in _states(output.stdout):
            # The first letter compares the index with the start, which is not asked for here.
            if state[1:] == b" " or covers(filled, path):
                continue
            is_new = state == b"??"
            if covers(self._hidden, path) and (is_new or covers((_PRIVATE,), path)):
                # That name is ours alone, also in a repository that has it.
                left_out += [] if is_new else [path]
            elif state[1:] == b"D":
                removed.append(path)
                # Git does not tell what took the place of a file.
                left_out += [path + b"/"] if self._is_repository(path) else []
            else:
                untracked += [path] if is_new else []
                (changed if self._can_carry(path) else left_out).append(path)
        unreadable = _unreadable(os.fsencode(output.stderr))
        left_out += [path for path in unreadable if not covers(self._hidden, path)]
        unique = tuple(dict.fromkeys(left_out))
        return Found(tuple(changed), tuple(removed), tuple(untracked), unique)

    def _can_carry(self, path: bytes) -> bool:
        full = self._full(path)
        try:
            status = full.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return True  # gone since; then nothing of it is added
        except OSError:
            return False
        if stat.S_ISLNK(status.st_mode):
            return True
        # Git lists a directory only for a repository of its own inside the tree.
        regular = stat.S_ISREG(status.st_mode)
        return regular and status.st_size <= MAX_FILE_BYTES and os.access(full, os.R_OK)

    def _is_repository(self, path: bytes) -> bool:
        full = self._full(path)
        return not full.is_symlink() and os.path.lexists(full / ".git")

    def _has_content(self, submodule: bytes) -> bool:
        try:
            return any(self._full(submodule).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def _full(self, path: bytes) -> Path:
        return self.worktree / os.fsdecode(path)


def covers(paths: Sequence[bytes], path: bytes) -> bool:
    """True if a path is one of the paths or lies in one of them."""
    return any(path == each or path.startswith(each + b"/") for each in paths)


def _states(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The two state letters and the path of each line of `git status --porcelain=v1 -z`."""
    for line in raw.split(b"\0")[:-1]:
        yield line[:2], line[3:]


def _unreadable(errors: bytes) -> list[bytes]:
    """Directories and files that git could not look at, from its warnings."""
    return [*_UNREADABLE.findall(errors), *_UNSEARCHABLE.findall(errors)]


def _reported(out: bytes, paths: Sequence[bytes]) -> set[bytes]:
    """The paths that `git update-index --verbose` said it added, which it does in their order."""
    taken, position = set(), 0
    for path in paths:
        line = b"add '" + path + b"'\n"
        if out.startswith(line, position):
            taken.add(path)
            position += len(line)
    return taken


def _joined(paths: Sequence[bytes]) -> bytes:
    return b"".join(path + b"\0" for path in paths)
