"""What a task changed: its tree against the commits it started from, as one patch."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.git import TooMuchOutput, run_all, run_git
from agent.layout import Layout
from agent.patch import Entry, RawPatch, largest, mend, parse, shown, with_rename_prefix
from agent.records import Part, TaskRecord
from agent.tree_reader import TreeReader
from agent.trees import Trees

MAX_PATCH_BYTES = 64 * 1024 * 1024
"""The largest files are left out until the patch of one repository is no longer than this."""
# Beyond this many, only files that were renamed without a change are found to be so.
_RENAME_LIMIT = 300
# What a file of a patch takes beside its lines, which in the worst case are one character long.
_HEADER_BYTES = 512
_NAME_GROWTH = 24
_GROWTH = 2


@dataclass(frozen=True, slots=True)
class Changes:
    """A patch that `git apply` takes, the paths it touches, and what it does not carry."""

    diff: str = ""
    changed_files: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


class ChangeReader:
    """Reads the changes of tasks."""

    def __init__(self, layout: Layout, trees: Trees, max_bytes: int = MAX_PATCH_BYTES) -> None:
        self._layout = layout
        self._trees = trees
        self._max_bytes = max_bytes
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def changes(self, task_id: str) -> Changes:
        """The changes of one task, over all of its repositories.

        Ignored files, placed files and what came with the dependencies stay out. Named in
        `left_out`: repositories inside the tree, submodules with content, files that are too
        large, unreadable or no regular files, and files that git refuses. Nothing is known of
        empty directories, nor of untracked sockets, pipes and devices.

        Raises:
            UnknownTask: The task has no tree.
            GitFailed: Git could not read the tree.
        """
        record = self._trees.record(task_id)
        async with self._locks[task_id]:
            found = await run_all(
                *(self._of_part(self.reader(task_id, record, part), part) for part in record.parts)
            )
        return Changes(
            "".join(changes.diff for changes in found),
            tuple(path for changes in found for path in changes.changed_files),
            tuple(path for changes in found for path in changes.left_out),
        )

    def reader(self, task_id: str, record: TaskRecord, part: Part) -> TreeReader:
        """The reader of one part of a task."""
        return TreeReader(
            self._layout.shadow(task_id, part.name),
            self._layout.task(task_id) / part.directory,
            part.submodules,
            record.hidden(part),
        )

    async def _of_part(self, reader: TreeReader, part: Part) -> Changes:
        found = await reader.find()
        refused = await reader.stage(found)
        comparison = Comparison(reader, part.start, part.prefix, self._max_bytes)
        try:
            changes = Changes() if found.nothing else await comparison.changes()
        except TooMuchOutput:
            changes = await comparison.changes_without_largest()
        left_out = (*found.left_out, *refused)
        return replace(
            changes,
            left_out=(*(part.prefix + shown(path) for path in left_out), *changes.left_out),
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The staged index of a reader against the start."""

    reader: TreeReader
    start: str
    prefix: str
    max_bytes: int

    async def changes(self) -> Changes:
        """The patch.

        Raises:
            TooMuchOutput: It would be longer than `max_bytes`.
        """
        patch = await self._diff()
        left_out: tuple[Entry, ...] = ()
        if not patch.is_text:
            patch, left_out = mend(patch, await self._diff(all_binary=True))
        text = with_rename_prefix(patch.text, self.prefix) if self.prefix else patch.text
        return Changes(text.decode(), self._named(patch.entries), self._named(left_out))

    async def changes_without_largest(self) -> Changes:
        """The patch without the largest files, which are named instead."""
        entries = parse(
            await self._git("diff-index", "--cached", "--raw", "-z", self.start)
        ).entries
        left_out = largest(await self._sizes(entries), self.max_bytes)
        await self.reader.restore([entry.before for entry in left_out])
        changes = await self.changes()
        return replace(changes, left_out=(*self._named(left_out), *changes.left_out))

    def _named(self, entries: Sequence[Entry]) -> tuple[str, ...]:
        paths = dict.fromkeys(path for entry in entries for path in entry.paths)
        return tuple(self.prefix + shown(path) for path in paths)

    async def _diff(self, *, all_binary: bool = False) -> RawPatch:
        options = ["-c", f"core.attributesFile={await self._no_text()}"] if all_binary else []
        return parse(
            await self._git(
                *options, "diff-index", "--cached", "--raw", "-p", "-z", "-M",
                f"-l{_RENAME_LIMIT}", "--binary", "--full-index", "--no-ext-diff",
                "--no-textconv", "--no-color", f"--src-prefix=a/{self.prefix}",
                f"--dst-prefix=b/{self.prefix}", self.start, limit=self.max_bytes,
            )
        )  # fmt: skip

    async def _no_text(self) -> Path:
        path = self.reader.shadow / "attributes"
        await asyncio.to_thread(path.write_text, "* -diff\n")
        return path

    async def _sizes(self, entries: Sequence[Entry]) -> list[tuple[int, Entry]]:
        """How long each entry's part of the patch is at most."""
        blobs = list(dict.fromkeys(blob for entry in entries for blob in entry.blobs))
        told = await self._git(
            "cat-file", "--batch-check=%(objectname) %(objectsize)", stdin="\n".join(blobs) + "\n"
        )
        sizes = dict(line.split(" ", 1) for line in told.decode().splitlines())
        return [
            (
                _HEADER_BYTES
                + _NAME_GROWTH * len(b"".join(entry.paths) + self.prefix.encode())
                + _GROWTH * sum(_size(sizes, blob) for blob in entry.blobs),
                entry,
            )
            for entry in entries
        ]

    async def _git(
        self, *arguments: str, stdin: str | None = None, limit: int | None = None
    ) -> bytes:
        """Git without a tree, so that no attribute in it has a say in how the patch looks."""
        shadow = self.reader.shadow
        output = await run_git(
            ["-c", "core.bare=true", *arguments],
            shadow,
            environment={"GIT_DIR": str(shadow), "GIT_INDEX_FILE": str(self.reader.index)},
            stdin=None if stdin is None else stdin.encode(),
            limit=limit,
        )
        return output.stdout


def _size(sizes: dict[str, str], blob: str) -> int:
    """The size of a blob; a submodule's commit is not here and takes a line."""
    size = sizes.get(blob, "")
    return int(size) if size.isdigit() else 0
