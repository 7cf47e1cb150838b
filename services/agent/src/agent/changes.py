"""What a task changed: its tree against the commits it started from, as one patch.

The tree is read through a git directory that only the worker knows (`Layout.shadow`), so that
neither the task's index, history or stash nor any configuration or hook of the repository takes
part. The cost grows with the changes, not with the tree, beyond one `stat` a file.
"""

import asyncio
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.git import run_git
from agent.layout import Layout
from agent.trees import EMPTY_TREE, ROOT, SCRATCH, Part, Trees

MAX_FILE_BYTES = 50 * 1024 * 1024
"""A changed file larger than this is named in `left_out` instead of being carried."""


@dataclass(frozen=True, slots=True)
class Changes:
    """A patch that `git apply` takes, the paths it touches, and what it cannot carry."""

    diff: str
    changed_files: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One changed path, as git's raw diff tells it."""

    old: str
    new: str
    paths: tuple[str, ...]


class ChangeReader:
    """Reads the changes of tasks."""

    def __init__(self, layout: Layout, trees: Trees) -> None:
        self._layout = layout
        self._trees = trees
        self._locks: dict[str, asyncio.Lock] = {}

    async def changes(self, task_id: str) -> Changes:
        """The changes of one task, over all of its repositories.

        Raises:
            UnknownTask: The task has no tree.
            GitFailed: Git could not read the tree.
        """
        record = self._trees.record(task_id)
        parts = record.parts or (Part(SCRATCH, ROOT, EMPTY_TREE),)
        async with self._locks.setdefault(task_id, asyncio.Lock()):
            found = await asyncio.gather(*(self._of_part(task_id, part) for part in parts))
        return Changes(
            "".join(changes.diff for changes in found),
            tuple(path for changes in found for path in changes.changed_files),
            tuple(path for changes in found for path in changes.left_out),
        )

    async def _of_part(self, task_id: str, part: Part) -> Changes:
        shadow = self._layout.shadow(task_id, part.name)
        reader = _PartReader(shadow, self._layout.task(task_id) / part.directory)
        prefix = "" if part.directory == ROOT else f"{part.directory}/"
        left_out = await reader.stage()
        diff, entries = await reader.compare(part.start, prefix)
        changed = dict.fromkeys(path for entry in entries for path in entry.paths)
        return Changes(
            diff,
            tuple(prefix + _visible(path) for path in changed),
            tuple(prefix + _visible(os.fsdecode(path)) for path in left_out),
        )


@dataclass(frozen=True, slots=True)
class _PartReader:
    shadow: Path
    worktree: Path

    async def stage(self) -> list[bytes]:
        """Bring the private index up to the tree; returns the paths that were left out."""
        listed = await self._git_here("ls-files", "-z", "-m", "-o", "--exclude-standard")
        paths = dict.fromkeys(listed.split(b"\0")[:-1])
        carried, left_out = await asyncio.to_thread(self._sort_out, list(paths))
        if carried:
            await self._git_here(
                "add", "-A", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul",
                stdin=b"\0".join(carried) + b"\0",
            )  # fmt: skip
        return left_out

    def _sort_out(self, paths: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Part what a patch can carry from nested repositories, huge and unreadable files."""
        carried: list[bytes] = []
        left_out: list[bytes] = []
        for path in paths:
            full = os.path.join(os.fsencode(self.worktree), path)  # noqa: PTH118 - bytes paths
            (carried if _can_carry(full) else left_out).append(path)
        return carried, left_out

    async def compare(self, start: str, prefix: str) -> tuple[str, list[_Entry]]:
        """The patch from the start to the private index, and its entries."""
        tree = (await self._git_here("write-tree")).decode().strip()
        entries = _entries(await self._git_alone("diff-tree", "-r", "-z", "-M", start, tree))
        if not entries:
            return "", []
        command = (
            "diff-tree", "-r", "-p", "-M", "--binary", "--full-index", "--no-ext-diff",
            "--no-textconv", f"--src-prefix=a/{prefix}", f"--dst-prefix=b/{prefix}", start, tree,
        )  # fmt: skip
        raw = await self._git_alone(*command)
        try:
            return raw.decode(), entries
        except UnicodeDecodeError:
            attributes = await self._binary_attributes(entries)
            raw = await self._git_alone(*command, attributes=attributes)
            return raw.decode(errors="replace"), entries

    async def _binary_attributes(self, entries: Sequence[_Entry]) -> Path:
        """An attributes file that has every file that is not UTF-8 shown as binary."""
        lines = []
        for entry in entries:
            if not all([await self._is_text(blob) for blob in (entry.old, entry.new)]):
                lines += [f"{_attribute_pattern(path)} -diff\n" for path in entry.paths]
        path = self.shadow / "attributes"
        await asyncio.to_thread(path.write_text, "".join(lines), errors="surrogateescape")
        return path

    async def _is_text(self, blob: str) -> bool:
        if not blob.strip("0"):
            return True
        content = await run_git(["cat-file", "blob", blob], self.shadow, check=False)
        try:
            content.stdout.decode()
        except UnicodeDecodeError:
            return False
        return True

    async def _git_here(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        """Git with the private directory and index on the task's tree."""
        environment = {
            "GIT_DIR": str(self.shadow),
            "GIT_WORK_TREE": str(self.worktree),
            "GIT_LITERAL_PATHSPECS": "1",
        }
        ignoring = "--ignore-errors" in arguments
        output = await run_git(
            arguments, self.worktree, environment=environment, stdin=stdin, check=not ignoring
        )
        return output.stdout

    async def _git_alone(self, *arguments: str, attributes: Path | None = None) -> bytes:
        """Git on the private directory without a tree, so that no attribute of it counts."""
        options = ["-c", "core.bare=true"]
        if attributes is not None:
            options += ["-c", f"core.attributesFile={attributes}"]
        environment = {"GIT_DIR": str(self.shadow)}
        output = await run_git([*options, *arguments], self.shadow, environment=environment)
        return output.stdout


def _can_carry(path: bytes) -> bool:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True  # deleted: a patch says so
    if stat.S_ISDIR(status.st_mode):
        # Git lists a directory for a nested repository, or for a file that became a directory.
        return not os.path.lexists(os.path.join(path, b".git"))  # noqa: PTH118 - bytes paths
    if stat.S_ISLNK(status.st_mode):
        return True
    return status.st_size <= MAX_FILE_BYTES and os.access(path, os.R_OK)


def _entries(raw: bytes) -> list[_Entry]:
    """Parse `git diff-tree -r -z -M` (git's documentation, "raw output format")."""
    fields = [os.fsdecode(field) for field in raw.split(b"\0")[:-1]]
    entries, position = [], 0
    while position < len(fields):
        _, _, old, new, status = fields[position].split(" ")
        count = 2 if status[0] in "RC" else 1
        paths = tuple(fields[position + 1 : position + 1 + count])
        entries.append(_Entry(old, new, paths))
        position += 1 + count
    return entries


def _visible(path: str) -> str:
    """A path that JSON can carry: bytes that are not UTF-8 become question marks."""
    return path.encode(errors="replace").decode()


def _attribute_pattern(path: str) -> str:
    """A path as a quoted attribute pattern that matches only itself."""
    glob = "".join(f"\\{char}" if char in "\\*?[" else char for char in f"/{path}")
    quoted = glob.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{quoted}"'
