"""Every error Berth raises on purpose.

    BerthError
    ├── InvalidRequest            the caller can mend it (4xx)
    │   ├── RequestTooLarge
    │   ├── UnknownFile
    │   ├── FileConflict
    │   ├── UnknownStep
    │   ├── TaskStillRunning
    │   ├── TaskContinued
    │   ├── KeyReused
    │   ├── SettingRefused
    │   ├── PublishError
    │   │   ├── TaskNotEnded
    │   │   ├── TaskIsDryRun
    │   │   ├── NothingToPublish
    │   │   ├── PublishConflict
    │   │   ├── BranchTaken
    │   │   ├── PushRefused
    │   │   ├── ForgeUnknown
    │   │   └── ForgeRefused
    │   └── RepositoryError
    │       ├── RepositoryUrlRefused
    │       ├── RepositoryUnreachable
    │       ├── RepositoryNeedsCredentials
    │       ├── RepositoryRefusesCredentials
    │       ├── RepositoryEmpty
    │       ├── RepositoryTooLarge
    │       ├── RepositoryCorrupt
    │       └── UnknownRef
    ├── NotFound                  TaskNotFound, WorkspaceNotFound, ContainerNotFound, FileNotFound
    ├── RuntimeFailure            containers
    │   ├── RuntimeUnavailable
    │   ├── ContainerStartFailed
    │   ├── WorkerUnreachable
    │   │   └── WorkerHangs
    │   ├── ContainerBusy
    │   ├── TreeGone
    │   ├── WorkerRefused
    │   ├── BundleRefused
    │   ├── DiskExhausted
    │   └── WorkLost
    ├── ModelFailure              the model endpoint
    │   ├── ModelUnavailable
    │   ├── ModelRefused
    │   ├── ModelTimeout
    │   └── ModelResponseInvalid
    ├── ForgeFailure              a forge's API does not work
    ├── TaskStopped               the loop ended without an answer
    │   ├── BudgetExhausted
    │   ├── ModelMisbehaved
    │   └── ModelRepeatedItself
    ├── StorageFailure            database and objects
    │   ├── DatabaseUnavailable
    │   ├── ObjectNotFound
    │   ├── ObjectConflict
    │   ├── StaleLease
    │   ├── ExecutorBuried
    │   ├── ExecutorReplaced
    │   ├── BundleIncomplete
    │   ├── ManifestUnreadable
    │   └── CheckpointsUnusable
    ├── EgressError               a container's way out; told to the program that asks
    │   ├── EgressRefused
    │   ├── EgressUnreachable
    │   ├── EgressExhausted
    │   ├── EgressUnattributed
    │   └── EgressRequestInvalid
    ├── EngineError               what the proxy before a Docker engine answers
    │   ├── EngineCallRefused
    │   ├── EngineCallInvalid
    │   ├── EngineObjectUnknown
    │   └── EngineUnreachable
    ├── ServiceStopping           come back for the task later
    └── ConfigurationError        a setting cannot work on this machine

`code` is stable: clients match on it. `detail` is a sentence that says what to do. Neither
ever holds a secret or a file's content. `api.problem` maps the tree to HTTP once.
"""

from typing import ClassVar


class BerthError(Exception):
    """Root of the tree.

    Args:
        detail: A sentence for the user: what happened and what to do.
        facts: Small JSON values that name the thing concerned (a field, a host, a file name).
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, **facts: str | int | float | bool | None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class InvalidRequest(BerthError):
    """The request cannot be carried out as it stands."""

    code = "invalid_request"
    status = 422


class RequestTooLarge(InvalidRequest):
    """The request body is larger than the service takes."""

    code = "request_too_large"
    status = 413


class UnknownFile(InvalidRequest):
    """A name in `files` is neither an uploaded file nor a path in the repositories."""

    code = "unknown_file"


class FileConflict(InvalidRequest):
    """A file cannot be placed under `files/` because something is there already."""

    code = "file_conflict"


class UnknownStep(InvalidRequest):
    """A task has no such step, or not yet."""

    code = "unknown_step"


class TaskStillRunning(InvalidRequest):
    """Only a task that has ended can be continued."""

    code = "task_running"
    status = 409


class TaskContinued(InvalidRequest):
    """Another task already goes on in this task's tree."""

    code = "task_continued"
    status = 409


class KeyReused(InvalidRequest):
    """An `Idempotency-Key` came before, with another request."""

    code = "key_reused"
    status = 409


class SettingRefused(InvalidRequest):
    """A setting of a workspace is beyond what the deployment allows."""

    code = "setting_refused"


class PublishError(InvalidRequest):
    """A task's work cannot be published."""

    code = "publish_error"


class TaskNotEnded(PublishError):
    """The task still runs."""

    code = "task_not_ended"
    status = 409


class TaskIsDryRun(PublishError):
    """The task was given as a dry run, whose work is never published."""

    code = "task_is_dry_run"
    status = 409


class NothingToPublish(PublishError):
    """The task changed nothing."""

    code = "nothing_to_publish"
    status = 409


class PublishConflict(PublishError):
    """The task was published already, with other arguments."""

    code = "publish_conflict"
    status = 409


class BranchTaken(PublishError):
    """The branch is the default one, or exists and is not ours."""

    code = "branch_taken"
    status = 409


class PushRefused(PublishError):
    """The server did not take the branch."""

    code = "push_refused"


class ForgeUnknown(PublishError):
    """It is not known how to open a pull request for this repository."""

    code = "forge_unknown"


class ForgeRefused(PublishError):
    """The forge did not take a pull request, or not our credentials."""

    code = "forge_refused"


class RepositoryError(InvalidRequest):
    """A repository cannot be used."""

    code = "repository_error"


class RepositoryUrlRefused(RepositoryError):
    """The URL's form, scheme, host or path is not allowed."""

    code = "repository_url_refused"


class RepositoryUnreachable(RepositoryError):
    """The repository's server did not answer or knows no such repository."""

    code = "repository_unreachable"


class RepositoryNeedsCredentials(RepositoryError):
    """The repository's server asked for credentials that Berth does not have."""

    code = "repository_needs_credentials"


class RepositoryRefusesCredentials(RepositoryError):
    """The repository's server refused the credentials that Berth has for it."""

    code = "repository_refuses_credentials"


class RepositoryEmpty(RepositoryError):
    """The repository has no commit."""

    code = "repository_empty"


class RepositoryTooLarge(RepositoryError):
    """The repository is larger than the configured limit."""

    code = "repository_too_large"


class RepositoryCorrupt(RepositoryError):
    """The repository holds objects that are broken or crafted to do harm."""

    code = "repository_corrupt"


class UnknownRef(RepositoryError):
    """The repository has no such branch, tag or commit."""

    code = "unknown_ref"


class NotFound(BerthError):
    """Nothing has this name."""

    code = "not_found"
    status = 404


class TaskNotFound(NotFound):
    """No task has this id."""

    code = "task_not_found"


class WorkspaceNotFound(NotFound):
    """No workspace has this id."""

    code = "workspace_not_found"


class ContainerNotFound(NotFound):
    """No container has this name."""

    code = "container_not_found"


class FileNotFound(NotFound):
    """No uploaded file has this name."""

    code = "file_not_found"


class RuntimeFailure(BerthError):
    """Something about containers failed."""

    code = "runtime_failure"
    status = 503


class RuntimeUnavailable(RuntimeFailure):
    """The runtime does not answer or is missing on this machine."""

    code = "runtime_unavailable"


class ContainerStartFailed(RuntimeFailure):
    """A container was made but its worker never answered."""

    code = "container_start_failed"


class WorkerUnreachable(RuntimeFailure):
    """The worker in a container stopped answering."""

    code = "worker_unreachable"


class WorkerHangs(WorkerUnreachable):
    """The worker in a container answers nothing, not even whether it is well."""

    code = "worker_hangs"


class ContainerBusy(RuntimeFailure):
    """A task works in the container."""

    code = "container_busy"
    status = 409


class TreeGone(RuntimeFailure):
    """The tree of a task is no longer in its container."""

    code = "tree_gone"
    status = 410


class WorkerRefused(RuntimeFailure):
    """The worker answered a request of ours with an error."""

    code = "worker_refused"


class BundleRefused(RuntimeFailure):
    """What a container hands out as its checkpoints is broken, too large or crafted to do harm."""

    code = "bundle_refused"


class DiskExhausted(RuntimeFailure):
    """A container was stopped because its workspace went on growing above its limit."""

    code = "disk_exhausted"
    status = 507


class WorkLost(RuntimeFailure):
    """A task's tree is gone from its container and cannot be brought back."""

    code = "work_lost"


class ModelFailure(BerthError):
    """Something about the model endpoint failed."""

    code = "model_failure"
    status = 502


class ModelUnavailable(ModelFailure):
    """The model endpoint does not answer or is overloaded."""

    code = "model_unavailable"


class ModelRefused(ModelFailure):
    """The model endpoint refused the request: key, model name or content."""

    code = "model_refused"


class ModelTimeout(ModelFailure):
    """The model did not answer in time."""

    code = "model_timeout"


class ModelResponseInvalid(ModelFailure):
    """What the model endpoint answered is not a chat completion."""

    code = "model_response_invalid"


class ForgeFailure(BerthError):
    """The API of a forge does not answer, or not as documented."""

    code = "forge_failure"
    status = 502


class TaskStopped(BerthError):
    """The loop ended before the model gave an answer."""

    code = "task_stopped"


class BudgetExhausted(TaskStopped):
    """A task reached its limit of steps, tokens or seconds."""

    code = "budget_exhausted"


class ModelMisbehaved(TaskStopped):
    """The model made several unusable turns in a row."""

    code = "model_misbehaved"


class ModelRepeatedItself(TaskStopped):
    """The model made the same call with the same result again and again."""

    code = "model_repeated_itself"


class StorageFailure(BerthError):
    """Something about storage failed."""

    code = "storage_failure"
    status = 503


class DatabaseUnavailable(StorageFailure):
    """Postgres does not answer."""

    code = "database_unavailable"


class ObjectNotFound(StorageFailure):
    """Object storage holds nothing under this key."""

    code = "object_not_found"


class ObjectConflict(StorageFailure):
    """An object is not of the generation that a write was made for."""

    code = "object_conflict"
    status = 409


class StaleLease(StorageFailure):
    """A writer's lease on the workspace was taken over by another."""

    code = "stale_lease"
    status = 409


class ExecutorBuried(StorageFailure):
    """Other orchestrators have called this one dead."""

    code = "executor_buried"


class ExecutorReplaced(StorageFailure):
    """Another process has taken this orchestrator's id."""

    code = "executor_replaced"
    status = 409


class BundleIncomplete(StorageFailure):
    """A bundle builds on, or a checkpoint names, commits that object storage does not hold."""

    code = "bundle_incomplete"
    status = 409


class ManifestUnreadable(StorageFailure):
    """A workspace's manifest is damaged or was written by a newer release."""

    code = "manifest_unreadable"
    status = 500


class CheckpointsUnusable(StorageFailure):
    """The tree of a task that has ended can only come from object storage, which cannot give it."""

    code = "checkpoints_unusable"


class EgressError(BerthError):
    """A program in a container cannot connect to where it wants."""

    code = "egress_error"
    status = 502


class EgressRefused(EgressError):
    """The destination is not allowed, or has an address that is not."""

    code = "egress_refused"
    status = 403


class EgressUnreachable(EgressError):
    """The destination has no address or does not answer."""

    code = "egress_unreachable"


class EgressExhausted(EgressError):
    """The task or its workspace has used what it may of the way out."""

    code = "egress_exhausted"
    status = 429


class EgressUnattributed(EgressError):
    """The request does not say which of the container's tasks makes it."""

    code = "egress_unattributed"
    status = 407


class EgressRequestInvalid(EgressError):
    """The request is not one that a proxy can carry out."""

    code = "egress_request_invalid"
    status = 400


class EngineError(BerthError):
    """A call to a Docker engine is not carried out by the proxy before it."""

    code = "engine_error"
    status = 502


class EngineCallRefused(EngineError):
    """The orchestrator has no need of this call."""

    code = "engine_call_refused"
    status = 403


class EngineCallInvalid(EngineError):
    """The call is not a request that can be read."""

    code = "engine_call_invalid"
    status = 400


class EngineObjectUnknown(EngineError):
    """The deployment has nothing of this name on the engine."""

    code = "engine_object_unknown"
    status = 404


class EngineUnreachable(EngineError):
    """The engine does not answer the proxy."""

    code = "engine_unreachable"
    status = 503


class ServiceStopping(BerthError):
    """The service ends before the task; the task goes on when a service runs again."""

    code = "service_stopping"
    status = 503


class ConfigurationError(BerthError):
    """A setting cannot work on this machine."""

    code = "configuration_error"
