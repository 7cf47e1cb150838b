"""Containers as the orchestrator sees them, and the decision whether to reuse one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

MAX_OPEN_FILES = 8_192
MAX_FILE_BYTES = 8 * 2**30
MAX_DISK_BYTES = 10 * 2**30
MEMORY_SHARE_OF_TMPFS = 4

HANG_SECONDS = 10.0  # a busy worker may be slow; one that is silent for longer hangs


class ContainerState(StrEnum):
    """The state of a container on its runtime."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    BROKEN = "broken"  # exists but cannot be used; only removal helps


class Reuse(StrEnum):
    """What to do to get a running container."""

    REUSE = "reuse"
    RESUME = "resume"
    START = "start"
    CREATE = "create"
    RECREATE = "recreate"
    BIND = "bind"  # a generic container from the pool became the workspace's


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use at most.

    `open_files` counts those of one process, `file_bytes` is the size of one file, `disk_bytes` of
    all that a workspace keeps, which is watched from outside (`domain.disk`). What lies in
    temporary file systems counts as memory, and each of them holds `temporary_bytes`.
    """

    memory_bytes: int
    cpus: float
    pids: int
    open_files: int = MAX_OPEN_FILES
    file_bytes: int = MAX_FILE_BYTES
    disk_bytes: int = MAX_DISK_BYTES

    @property
    def largest_file_bytes(self) -> int:
        """The size of one file that is let grow: a larger one could not be kept."""
        return min(self.file_bytes, self.disk_bytes)

    @property
    def temporary_bytes(self) -> int:
        """The size of each temporary file system: all of them together leave memory to work."""
        return self.memory_bytes // MEMORY_SHARE_OF_TMPFS


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to be ensured for a workspace, or for the pool.

    `labels` are kept on the container by the runtime, beside its own. `workspace_id` is empty for
    the pool. `in_use` says that somebody works in the container already: then one that runs is
    used as it is, whatever it was made from.
    """

    name: str
    workspace_id: str
    limits: Limits
    labels: Mapping[str, str] = field(default_factory=dict)
    in_use: bool = False

    @property
    def is_pooled(self) -> bool:
        """True if no workspace waits for it."""
        return not self.workspace_id


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a worker listens: a unix socket, or a loopback URL on hosts sockets cannot cross."""

    uds: Path | None
    url: str


@dataclass(frozen=True, slots=True)
class Container:
    """A container that exists.

    `workspace_id` is empty while it is in the pool. `fingerprint` identifies image and limits it
    was made from. `made_here` is true if it provably was made with our data directory. `how` tells
    how `ensure` came by it; in a listing it is `reuse`.
    """

    name: str
    workspace_id: str
    runtime: str
    state: ContainerState
    endpoint: Endpoint
    created_at: datetime
    fingerprint: str
    how: Reuse = Reuse.REUSE
    made_here: bool = True


def decide_reuse(found: Container | None, fingerprint: str, *, in_use: bool = False) -> Reuse:
    """What `ensure` does about the container it found under the wanted name.

    A container made from another image or other limits is replaced: nothing of a workspace lives
    in a container that is not also in its volume or in storage. Not while somebody works in it,
    though: what runs there would be killed.
    """
    if found is None:
        return Reuse.CREATE
    if found.state is ContainerState.BROKEN:
        return Reuse.RECREATE
    runs = found.state in {ContainerState.RUNNING, ContainerState.PAUSED}
    if found.fingerprint != fingerprint and not (in_use and runs):
        return Reuse.RECREATE
    return {
        ContainerState.RUNNING: Reuse.REUSE,
        ContainerState.PAUSED: Reuse.RESUME,
        ContainerState.STOPPED: Reuse.START,
    }[found.state]
