"""What a caller asks for, before anything was looked up."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from orchestrator.errors import FileConflict, InvalidRequest, KeyReused

MAX_NAME_BYTES = 512
MAX_PART_BYTES = 240  # a file system's 255, less room for what storage adds


@dataclass(frozen=True, slots=True)
class InlineFile:
    """A file given with the request."""

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BudgetRequest:
    """Limits the caller asks for; None leaves the deployment's default."""

    max_steps: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """A task as it was asked for; a plain string in `files` names a file kept elsewhere.

    With `continue_from`, the id of a task that has ended, it goes on in that one's tree and
    conversation. `key` is the caller's own name for the request.
    """

    query: str
    repo_urls: tuple[str, ...] = ()
    ref: str | None = None
    files: tuple[InlineFile | str, ...] = ()
    budget: BudgetRequest = BudgetRequest()
    model: str | None = None
    install_dependencies: bool = False
    continue_from: str | None = None
    dry_run: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """A fork as it was asked for; without a query it simply goes on, with the parent's model."""

    parent: str
    step: int
    query: str = ""
    budget: BudgetRequest = BudgetRequest()
    model: str | None = None
    key: str = ""


def key_reused() -> KeyReused:
    """The error for a key that came before with something else."""
    return KeyReused(
        "This Idempotency-Key came before with another request: take a new key for each request."
    )


def checked_file_name(name: str) -> str:
    """A file's name as a clean relative path.

    Raises:
        InvalidRequest: It is empty, absolute, too long, or leaves its directory.
    """
    path = PurePosixPath(name)
    bad_part = any(part in ("..", ".git") for part in path.parts)
    if not path.parts or path.is_absolute() or bad_part or not name.isprintable():
        raise InvalidRequest(
            f"{name[:80]!r} is not a file name: give a relative path without '..'.", file=name[:80]
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidRequest(f"A file name has at most {MAX_NAME_BYTES} bytes.", file=name[:80])
    if any(len(part.encode()) > MAX_PART_BYTES for part in path.parts):
        raise InvalidRequest(
            f"Between slashes a file name has at most {MAX_PART_BYTES} bytes.", file=name[:80]
        )
    return str(path)


def require_distinct(names: Sequence[str]) -> None:
    """Refuse names that would fall on one another, also as a file and its own directory.

    Raises:
        FileConflict: Two of them do.
    """
    seen: set[PurePosixPath] = set()
    parents: set[PurePosixPath] = set()
    for name in names:
        path = PurePosixPath(name)
        if path in seen or path in parents or seen.intersection(path.parents):
            raise FileConflict(
                f"Two files would both be placed at files/{name}: give them other names.", file=name
            )
        seen.add(path)
        parents.update(path.parents)
