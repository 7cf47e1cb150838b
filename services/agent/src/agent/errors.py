"""What the worker refuses, and the answer the orchestrator gets.

WorkerError
├── BadRequest
│   └── TooLarge
├── NotOurs
├── UnknownTask
├── UnknownCommit
├── Conflict
├── StaleLease
├── GitFailed
└── StorageFailed
"""

from typing import ClassVar


class WorkerError(Exception):
    """A request that cannot be carried out; the text is for the orchestrator's error."""

    code: ClassVar[str] = "worker_error"
    status: ClassVar[int] = 500


class BadRequest(WorkerError):
    """The request is malformed."""

    code = "bad_request"
    status = 400


class TooLarge(BadRequest):
    """The request's body is too large."""

    code = "too_large"
    status = 413


class NotOurs(WorkerError):
    """The caller does not hold the key this worker was claimed with."""

    code = "not_claimed_by_you"
    status = 403


class UnknownTask(WorkerError):
    """No tree was prepared for this task."""

    code = "unknown_task"
    status = 404


class UnknownCommit(WorkerError):
    """A task cannot start from a commit that the clone lacks."""

    code = "unknown_commit"
    status = 422


class Conflict(WorkerError):
    """Something with this name is there already and differs."""

    code = "conflict"
    status = 409


class StaleLease(WorkerError):
    """The caller's lease on the workspace was taken over by another orchestrator."""

    code = "stale_lease"
    status = 409


class GitFailed(WorkerError):
    """A git command failed."""

    code = "git_failed"


class StorageFailed(WorkerError):
    """The workspace cannot be written: full, or closed to us."""

    code = "storage_failed"
    status = 507
