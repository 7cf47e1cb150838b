"""What the orchestrator needs from outside, as interfaces.

Each port has one suite of contract tests in `tests/contract` that every implementation passes.
Only `main` names implementations.
"""

from orchestrator.ports.checkpoints import CheckpointStore, Origin
from orchestrator.ports.clock import Clock
from orchestrator.ports.durability import Engine, RunTaskDurably, Steps
from orchestrator.ports.egress import Admission, Egress, Report
from orchestrator.ports.fleet import Executors, Leases
from orchestrator.ports.live_text import LiveTextChannel, LiveTextReader
from orchestrator.ports.metadata import Cancels, EventLog, TaskStore, WorkspaceSettingsStore
from orchestrator.ports.model import Model, OnText
from orchestrator.ports.objects import ObjectInfo, ObjectStore, StoredObject
from orchestrator.ports.publishing import (
    Branches,
    Change,
    Forge,
    Forges,
    Proposal,
    PublicationStore,
    PullRequest,
    Staged,
    StagedCommit,
    Target,
)
from orchestrator.ports.repositories import Repositories
from orchestrator.ports.runtime import Runtime, RuntimeInfo
from orchestrator.ports.secrets import Secrets
from orchestrator.ports.worker import (
    HeldCheckpoints,
    HeldPart,
    HeldRepository,
    PreparedTask,
    Progress,
    Toolbox,
    Worker,
    Workers,
)

__all__ = [
    "Admission",
    "Branches",
    "Cancels",
    "Change",
    "CheckpointStore",
    "Clock",
    "Egress",
    "Engine",
    "EventLog",
    "Executors",
    "Forge",
    "Forges",
    "HeldCheckpoints",
    "HeldPart",
    "HeldRepository",
    "Leases",
    "LiveTextChannel",
    "LiveTextReader",
    "Model",
    "ObjectInfo",
    "ObjectStore",
    "OnText",
    "Origin",
    "PreparedTask",
    "Progress",
    "Proposal",
    "PublicationStore",
    "PullRequest",
    "Report",
    "Repositories",
    "RunTaskDurably",
    "Runtime",
    "RuntimeInfo",
    "Secrets",
    "Staged",
    "StagedCommit",
    "Steps",
    "StoredObject",
    "Target",
    "TaskStore",
    "Toolbox",
    "Worker",
    "Workers",
    "WorkspaceSettingsStore",
]
