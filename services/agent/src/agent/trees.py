"""A task's tree: worktrees at their start commits, and the files its caller gave."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from agent.errors import BadRequest, Conflict, UnknownTask
from agent.git import run_git
from agent.layout import FILES, PRIVATE, Layout, checked_name

ROOT = "."
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
SCRATCH = "scratch"
MAX_FILE_NAME_PARTS = 32


@dataclass(frozen=True, slots=True)
class Start:
    """A repository and the commit its worktree starts from."""

    name: str
    commit: str


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """A file to be placed under `files/`."""

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Part:
    """One repository in a task's tree: `directory` is relative to the root of the tree."""

    name: str
    directory: str
    start: str


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What a task's tree was made from."""

    parts: tuple[Part, ...]
    placed: tuple[str, ...]

    def to_json(self) -> str:
        """The record as text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "TaskRecord":
        """The record from its text."""
        data = json.loads(text)
        return TaskRecord(tuple(Part(**part) for part in data["parts"]), tuple(data["placed"]))


class Trees:
    """Makes and finds the trees of tasks."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def root(self, task_id: str) -> Path:
        """The root of a prepared task's tree.

        Raises:
            UnknownTask: It was never prepared.
        """
        self.record(task_id)
        return self._layout.task(task_id)

    def record(self, task_id: str) -> TaskRecord:
        """What a prepared task's tree was made from.

        Raises:
            UnknownTask: It was never prepared.
        """
        try:
            text = (self._layout.record(task_id) / "task.json").read_text()
        except FileNotFoundError:
            raise UnknownTask(f"no tree was prepared for task {task_id}") from None
        return TaskRecord.from_json(text)

    async def prepare(
        self, task_id: str, start: Sequence[Start], files: Sequence[PlacedFile]
    ) -> TaskRecord:
        """Make a task's tree. The same call again changes nothing.

        Raises:
            Conflict: The task has a tree made from something else, or a file is in the way.
            GitFailed: A start commit is not in its clone.
        """
        wanted = TaskRecord(_parts(start), tuple(_checked_path(file.name) for file in files))
        try:
            existing = self.record(task_id)
        except UnknownTask:
            return await self._make(task_id, wanted, files)
        if existing != wanted:
            raise Conflict(f"task {task_id} has a tree that was made from something else")
        return existing

    def ignore(self, task_id: str, part: Part, directories: Sequence[str]) -> None:
        """Keep directories of one repository, given by their names at its top, out of the patch."""
        lines = "".join(f"/{_literal(name)}/\n" for name in directories)
        for file in (
            self._layout.record(task_id) / "exclude",
            self._layout.shadow(task_id, part.name) / "info" / "exclude",
        ):
            with file.open("a") as exclude:
                exclude.write(lines)

    async def _make(
        self, task_id: str, record: TaskRecord, files: Sequence[PlacedFile]
    ) -> TaskRecord:
        root, kept = self._layout.task(task_id), self._layout.record(task_id)
        # A tree without a record is what an interrupted call left: begin again.
        await asyncio.to_thread(_clear, root, kept)
        kept.mkdir(parents=True)
        root.mkdir(parents=True)
        try:
            (kept / "exclude").write_text(_exclude(record.placed))
            await asyncio.gather(*(self._add_worktree(task_id, part) for part in record.parts))
            for file, name in zip(files, record.placed, strict=True):
                _place(root / FILES / name, file.content)
            if not record.parts:
                self._add_shadow(task_id, SCRATCH, alternates=None)
            (kept / "task.json").write_text(record.to_json())
        except BaseException:
            await asyncio.to_thread(_clear, root, kept)
            raise
        return record

    async def _add_worktree(self, task_id: str, part: Part) -> None:
        clone = self._layout.clone(part.name)
        directory = self._layout.task(task_id) / part.directory
        await run_git(
            ["worktree", "add", "--quiet", "--force", "--detach", str(directory), part.start],
            clone,
        )
        private = _git_directory(directory)
        exclude = self._layout.record(task_id) / "exclude"
        (private / "config.worktree").write_text(f'[core]\n\texcludesFile = "{exclude}"\n')
        shadow = self._add_shadow(task_id, part.name, alternates=clone / "objects")
        # The copy brings the stat data along: only changed files are read when comparing.
        await asyncio.to_thread(shutil.copy2, private / "index", shadow / "index")

    def _add_shadow(self, task_id: str, name: str, alternates: Path | None) -> Path:
        """A git directory that no tool of the task knows of, with a configuration of ours."""
        shadow = self._layout.shadow(task_id, name)
        for directory in ("objects/info", "refs", "info"):
            (shadow / directory).mkdir(parents=True)
        (shadow / "HEAD").write_text("ref: refs/heads/none\n")
        (shadow / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = false\n")
        exclude = (self._layout.record(task_id) / "exclude").read_text()
        (shadow / "info" / "exclude").write_text(exclude)
        if alternates is not None:
            (shadow / "objects" / "info" / "alternates").write_text(f"{alternates}\n")
        return shadow


def _parts(start: Sequence[Start]) -> tuple[Part, ...]:
    names = [checked_name(part.name) for part in start]
    if len(set(names)) != len(names):
        raise BadRequest("two repositories of one task have the same name")
    alone = len(start) == 1
    return tuple(Part(part.name, ROOT if alone else part.name, part.commit) for part in start)


def _checked_path(name: str) -> str:
    path = PurePosixPath(name)
    parts = path.parts
    if (
        not name
        or path.is_absolute()
        or len(parts) > MAX_FILE_NAME_PARTS
        or any(part in ("..", ".git") or "\0" in part or "\n" in part for part in parts)
    ):
        raise BadRequest(f"not a valid file name: {name[:64]!r}")
    return str(path)


def _place(target: Path, content: bytes) -> None:
    if target.exists() or target.is_symlink():
        raise Conflict(f"{FILES}/{target.name} exists in the repository: give another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _exclude(placed: Sequence[str]) -> str:
    lines = [f"/{PRIVATE}/"] + [f"/{FILES}/{_literal(name)}" for name in placed]
    return "".join(f"{line}\n" for line in lines)


def _literal(path: str) -> str:
    """A path as an ignore pattern that matches only itself."""
    escaped = "".join(f"\\{char}" if char in "\\*?[" else char for char in path)
    stripped = escaped.rstrip(" ")
    return stripped + "\\ " * (len(escaped) - len(stripped))


def _git_directory(worktree: Path) -> Path:
    return Path((worktree / ".git").read_text().removeprefix("gitdir:").strip())


def _clear(*directories: Path) -> None:
    for directory in directories:
        if directory.exists():
            shutil.rmtree(directory)
