"""A task: one query run in a workspace."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from orchestrator.domain.budget import Budget, StopReason
from orchestrator.domain.lineage import Lineage
from orchestrator.domain.workspace import Workspace


class TaskStatus(StrEnum):
    """Where a task stands; the last three are final."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to be placed under `files/` for one task."""

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StartPoint:
    """The commit a repository's worktree starts from; `ref` is what the caller asked for."""

    name: str
    commit: str
    ref: str


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task that was accepted and is about to run.

    `query` is empty for a fork that only goes on. `request_digest` is of the request that made it
    and came with a key of the caller's, so that another request with that key is noticed. `model`
    is a name at the endpoint; empty: the deployment's own.
    """

    id: str
    query: str
    workspace: Workspace
    start: tuple[StartPoint, ...]
    files: tuple[InputFile, ...]
    budget: Budget
    install_dependencies: bool = False
    lineage: Lineage | None = None
    request_digest: str = ""
    dry_run: bool = False
    model: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a task cost."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    tool_seconds: float = 0.0
    wall_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why a task failed: a stable code and a sentence."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Patch:
    """What a task changed against its start commits.

    `diff` applies with `git apply`; `left_out` names changed things a patch cannot carry, such
    as nested repositories.
    """

    diff: str = ""
    changed_files: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a task ended; everything about it that is known only at the end."""

    status: TaskStatus
    stop_reason: StopReason
    answer: str
    patch: Patch
    steps: int
    receipt: Receipt
    error: TaskError | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it is kept; `files` has the names of its files, whose contents are objects.

    `continued_by` is the id of the task that goes on in its tree.
    """

    id: str
    query: str
    workspace: Workspace
    runtime: str
    start: tuple[StartPoint, ...]
    budget: Budget
    status: TaskStatus
    created_at: datetime
    files: tuple[str, ...] = ()
    install_dependencies: bool = False
    dry_run: bool = False
    cancel_requested: bool = False
    ending: Ending | None = None
    finished_at: datetime | None = None
    lineage: Lineage | None = None
    continued_by: str | None = None
    request_digest: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; what is None does not matter. `before` is the id that ended a page."""

    status: TaskStatus | None = None
    workspace_id: str | None = None
    before: str | None = None
    limit: int = 50
