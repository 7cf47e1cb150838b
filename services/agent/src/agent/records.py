"""What the worker remembers of a task, in a file outside the task's tree."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

from agent.errors import BadRequest, StorageFailed
from agent.layout import FILES, PRIVATE, checked_name

ROOT = "."
SCRATCH = "scratch"
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
MAX_PATH_PARTS = 32
MAX_PATH_BYTES = 1_024
MAX_PART_BYTES = 255
_NO_TEXT = frozenset({"Cc", "Cs"})  # control characters and halves of pairs
_COMMIT = re.compile(r"[0-9a-f]{40}")


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
    """One repository in a task's tree.

    Args:
        name: The repository's name.
        directory: Where its worktree is, relative to the root of the tree.
        start: The commit it starts from; for a scratch task the empty tree.
        submodules: Paths that are submodules at the start.
        installed: Files and directories that came with the dependencies.
    """

    name: str
    directory: str
    start: str
    submodules: tuple[str, ...] = ()
    installed: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """What comes before its paths in the patch of the task."""
        return "" if self.directory == ROOT else f"{self.directory}/"


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What a task's tree was made from.

    Args:
        request: Digest of what was asked for.
        parts: The repositories; for a scratch task one that starts empty.
        placed: Paths of placed files, relative to the root of the tree.
        dependencies: What is to be told of the dependencies, once their installation ended.
    """

    request: str
    parts: tuple[Part, ...]
    placed: tuple[str, ...]
    dependencies: tuple[str, ...] | None = None

    def with_part(self, part: Part) -> Self:
        """The record with a part of this name replaced."""
        parts = tuple(part if part.name == each.name else each for each in self.parts)
        return replace(self, parts=parts)

    def hidden(self, part: Part) -> tuple[str, ...]:
        """Untracked files and directories that stay out of a part's patch."""
        ours = (PRIVATE, *self.placed)
        inside = (path.removeprefix(part.prefix) for path in ours if path.startswith(part.prefix))
        return (*inside, *part.installed)

    def save(self, directory: Path) -> None:
        """Write the record to a directory: whole, or not at all."""
        new = directory / "task.json.new"
        new.write_text(json.dumps(asdict(self)))
        new.replace(directory / "task.json")

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """The record in a directory; None if there is none.

        Raises:
            StorageFailed: It was damaged, which only a task can have done.
        """
        try:
            data = json.loads((directory / "task.json").read_text())
            return cls(
                data["request"],
                tuple(_part(each) for each in data["parts"]),
                tuple(data["placed"]),
                None if data["dependencies"] is None else tuple(data["dependencies"]),
            )
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError):
            raise StorageFailed(f"the record of task {directory.name} is damaged") from None


def new_record(start: Sequence[Start], files: Sequence[PlacedFile]) -> TaskRecord:
    """The record of a task that is to be prepared.

    Raises:
        BadRequest: A name or a commit is none, or a repository's name comes twice.
    """
    placed = tuple(f"{FILES}/{checked_path(file.name)}" for file in files)
    digest = hashlib.sha256()
    for each in start:
        digest.update(f"start {each.name} {each.commit}\n".encode())
    for path, file in zip(placed, files, strict=True):
        digest.update(f"file {path} {hashlib.sha256(file.content).hexdigest()}\n".encode())
    return TaskRecord(digest.hexdigest(), _parts(start), placed)


def continued_record(
    earlier: TaskRecord, earlier_id: str, files: Sequence[PlacedFile]
) -> TaskRecord:
    """The record of a task that goes on in the tree of an earlier one, with more files.

    Raises:
        BadRequest: A file's name is none.
    """
    new = new_record((), files)
    placed = (*earlier.placed, *new.placed)
    digest = hashlib.sha256(f"continue {earlier_id}\n{new.request}".encode())
    return TaskRecord(digest.hexdigest(), earlier.parts, placed, earlier.dependencies)


def forked_record(parent: TaskRecord, parent_id: str, step: int) -> TaskRecord:
    """The record of a task whose tree is another's after a step."""
    digest = hashlib.sha256(f"fork {parent_id} {step}\n".encode())
    return TaskRecord(digest.hexdigest(), parent.parts, parent.placed)


def checked_path(name: str) -> str:
    """The name of a placed file, if it is one; it may name directories.

    Raises:
        BadRequest: It is empty, absolute or too long, leaves its directory, or has characters
            that are no text.
    """
    path = PurePosixPath(name)
    is_text = not any(unicodedata.category(character) in _NO_TEXT for character in name)
    encoded = [part.encode() for part in path.parts] if is_text else []
    if (
        not encoded
        or path.is_absolute()
        or len(encoded) > MAX_PATH_PARTS
        or sum(map(len, encoded)) > MAX_PATH_BYTES
        or any(len(part) > MAX_PART_BYTES or part in (b"..", b".git") for part in encoded)
    ):
        raise BadRequest(f"not a valid file name: {name[:64]!r}")
    return str(path)


def _part(data: dict[str, Any]) -> Part:
    listed = {name: tuple(data[name]) for name in ("submodules", "installed")}
    return Part(data["name"], data["directory"], data["start"], **listed)


def _parts(start: Sequence[Start]) -> tuple[Part, ...]:
    if not start:
        return (Part(SCRATCH, ROOT, EMPTY_TREE),)
    names = [checked_name(each.name) for each in start]
    if len(set(names)) != len(names):
        raise BadRequest("two repositories of one task have the same name")
    for each in start:
        if not _COMMIT.fullmatch(each.commit):
            raise BadRequest(f"not a commit: {each.commit[:64]!r}")
    alone = len(start) == 1
    return tuple(Part(each.name, ROOT if alone else each.name, each.commit) for each in start)
