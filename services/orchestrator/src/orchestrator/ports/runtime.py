"""Where containers run."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.domain.container import Container, ContainerSpec, Limits
from orchestrator.domain.disk import DiskUse


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What a runtime is and which limits this machine lets it enforce."""

    name: str
    reason: str
    enforced: tuple[str, ...]
    not_enforced: tuple[str, ...]


class Runtime(Protocol):
    """Where containers run.

    Names are those of `Workspace.container_name` and of the pool. A runtime lists and touches only
    containers of its own deployment. "Already gone" is success for `pause`, `stop` and `remove`; an
    engine that does not answer raises `RuntimeUnavailable` everywhere and is never taken for
    "gone".
    """

    async def ensure(self, spec: ContainerSpec) -> Container:
        """Return the container of this name, running, its worker answering `/health`.

        Reuses, resumes, starts, creates or recreates it, as `decide_reuse` says. Two calls at
        once for one name make one container. A container that was begun and could not be brought
        up is removed again before the error is raised; its volume is kept.

        Raises:
            ContainerStartFailed: The worker did not answer in time; the text ends with its log.
            RuntimeUnavailable: The engine does not answer.
        """
        ...

    async def poll(self, name: str) -> Container | None:
        """The container as it is now, or None if there is none.

        Before `ensure` has returned it may report a container whose worker does not answer yet.
        After a crash of the worker it reports `STOPPED` or `BROKEN`, never `RUNNING`.
        """
        ...

    async def pause(self, name: str) -> None:
        """Freeze the container's processes, whole; `ensure` lets them go on where they were.

        What does not run is left as it is. A call that fails midway leaves it running or paused.

        Raises:
            RuntimeFailure: Its processes cannot be frozen.
        """
        ...

    async def bind(self, pooled: str, spec: ContainerSpec) -> bool:
        """Make the container `pooled` the one of a workspace, with its volume and its worker.

        After a crash at any moment the container belongs to the workspace or to nobody.

        Returns:
            False if nothing was done: the workspace has a container or work of its own, or there
            is no such container.

        Raises:
            RuntimeUnavailable: The engine does not answer; whether it was done is open. Then
                `ensure` settles it, and `pooled` must not be offered to anybody else.
        """
        ...

    async def fingerprint(self, limits: Limits) -> str:
        """What a container that is made now with these limits has as its fingerprint."""
        ...

    async def stop(self, name: str) -> None:
        """End the container's processes and keep its work; `ensure` brings it back."""
        ...

    async def remove(self, name: str) -> None:
        """Delete the container and its volume, running or not."""
        ...

    async def list(self) -> Sequence[Container]:
        """All containers of this deployment, in any state, sorted by name."""
        ...

    async def tidy(self, known: Collection[str]) -> Sequence[str]:
        """Remove what crashes have left of containers, where it provably is ours.

        That is what belongs to no container: half-made bindings, directories of sockets, control
        groups, and work under names that are not in `known`. To be called while nobody else uses
        this runtime.

        Returns:
            What was removed, for the log.
        """
        ...

    async def logs(self, name: str, lines: int) -> str:
        """The last `lines` lines the container's worker wrote.

        Raises:
            ContainerNotFound: There is no such container.
        """
        ...

    async def disk_use(self, name: str) -> DiskUse:
        """Measure what a container has on disk, from outside of it, running or not.

        That takes a while; nothing else waits for it. Temporary file systems are not on disk.

        Raises:
            ContainerNotFound: There is no such container.
            RuntimeFailure: It cannot be measured now.
        """
        ...

    async def disk_free(self) -> int | None:
        """The bytes that the containers' file system has left; None if we cannot see it.

        Raises:
            RuntimeUnavailable: The engine does not answer.
        """
        ...

    async def info(self) -> RuntimeInfo:
        """What this runtime is and what it enforces."""
        ...

    async def close(self) -> None:
        """Release connections; containers are left as they are."""
        ...
