"""The worker in a container, and its tools."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from orchestrator.domain.container import Container
from orchestrator.domain.conversation import ToolResult, ToolSpec
from orchestrator.domain.egress import EgressPass
from orchestrator.domain.lacking import NOTHING, Lacking
from orchestrator.domain.task import InputFile, Patch, StartPoint

Progress = Callable[[str], Awaitable[None]]
"""Called with the newest line of a running tool's output."""


@dataclass(frozen=True, slots=True)
class HeldRepository:
    """A repository a worker has a clone of, and the commits its references point at."""

    name: str
    tips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task's tree stands in the container.

    `dependencies` has a sentence for each kind of dependency file that was found; `lacking` is
    what a tree made of a checkpoint does not have.
    """

    dependencies: tuple[str, ...]
    lacking: Lacking = NOTHING


@dataclass(frozen=True, slots=True)
class HeldPart:
    """What a worker has of one repository's checkpoints in a task.

    `commit` and `state` are those of the newest, for which see `domain.manifest.Checkpoint`;
    `checkpoints` are the commits by key, for each call that changed the tree. `start` is empty
    for a scratch task.
    """

    name: str
    start: str
    commit: str
    state: str
    checkpoints: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HeldCheckpoints:
    """What a worker has of a task.

    Args:
        prepared: Whether the task has a tree there at all.
        key: Of the newest checkpoint; empty if no call has changed anything yet.
        failed: Why there is no checkpoint after that call; then `parts` is empty.
        ended: Keys of the calls that the worker would answer from its journal.
        parts: The repositories.
    """

    prepared: bool
    key: str = ""
    failed: str = ""
    ended: frozenset[str] = frozenset()
    parts: tuple[HeldPart, ...] = ()


class Toolbox(Protocol):
    """Tools a model can call in one task."""

    async def tools(self) -> Sequence[ToolSpec]:
        """The tools on offer; names are unique."""
        ...

    async def call(
        self,
        name: str,
        arguments: dict[str, object],
        *,
        key: str = "",
        progress: Progress | None = None,
    ) -> ToolResult:
        """Run a tool; what went wrong inside it is a result, not an exception.

        A call with a `key` is run once in its task: the same key again gets the same result.

        Raises:
            WorkerUnreachable: The server behind the tool is gone.
        """
        ...


class Worker(Protocol):
    """The worker in one container, claimed and ready."""

    async def repositories(self) -> Sequence[HeldRepository]:
        """The clones the worker has."""
        ...

    async def receive(self, name: str, url: str, bundle: AsyncIterator[bytes]) -> None:
        """Stream a git bundle into the clone `name`, which is made if need be.

        `url` is only shown to the user as the clone's origin.
        """
        ...

    async def prepare(
        self,
        task_id: str,
        start: Sequence[StartPoint],
        files: Sequence[InputFile],
        *,
        install: bool,
    ) -> PreparedTask:
        """Make the task's worktrees at their start commits and place its files."""
        ...

    async def let_out(self, task_id: str, egress_pass: EgressPass) -> None:
        """Give a task, which need not be prepared yet, what its programs need to get out."""
        ...

    async def continue_tree(
        self, task_id: str, earlier: str, files: Sequence[InputFile]
    ) -> PreparedTask:
        """Have a task go on in the tree of one that has ended, with more files in it.

        Raises:
            TreeGone: The worker has no tree of the earlier task.
        """
        ...

    async def fork_tree(self, task_id: str, parent: str, step: int) -> PreparedTask:
        """Make a task's tree from what the parent's was after a step.

        Raises:
            TreeGone: The worker has no tree of the parent.
        """
        ...

    async def require_tree(self, task_id: str) -> None:
        """See that the worker has the tree of a task.

        Raises:
            TreeGone: It has not.
        """
        ...

    async def difference(self, task_id: str, start: int, end: int | None) -> Patch:
        """The patch between the trees after two steps; None stands for the newest checkpoint.

        Raises:
            TreeGone: The worker has no tree of the task.
        """
        ...

    async def patch(self, task_id: str) -> Patch:
        """What the task's trees differ in from their start commits, now."""
        ...

    async def interrupt(self, task_id: str) -> None:
        """End the task's tool calls that still run; what they did so far is kept."""
        ...

    async def keep_output(self, task_id: str, name: str, text: str) -> str:
        """Keep a long tool output in the task's tree; returns the path the model can read."""
        ...

    async def checkpoints(self, task_id: str) -> HeldCheckpoints:
        """Which checkpoints of a task there are; one that is being made is waited for."""
        ...

    def bundle(
        self, task_id: str, name: str, tips: Sequence[str], without: Sequence[str]
    ) -> AsyncGenerator[bytes, None]:
        """A git bundle of commits of a task's repository, without what leads to others.

        Raises:
            WorkerRefused: It lacks one of the commits.
        """
        ...

    async def take_bundle(
        self, task_id: str, name: str, bundle: AsyncGenerator[bytes, None]
    ) -> None:
        """Give the repository of a prepared task the commits of a git bundle."""
        ...

    async def restore(self, task_id: str, key: str, states: Mapping[str, str]) -> Lacking:
        """Put a prepared task's tree to a checkpoint whose state commits it has, by repository.

        Returns:
            What the checkpoint could not carry.

        Raises:
            WorkerRefused: It cannot.
        """
        ...

    def toolbox(self, task_id: str) -> AbstractAsyncContextManager[Toolbox]:
        """The worker's tools, bound to the task's tree, connected while the context lasts."""
        ...

    async def close(self) -> None:
        """Close the connections to it."""
        ...


class Workers(Protocol):
    """Connects to workers."""

    async def connect(self, container: Container, key: str, generation: int = 0) -> Worker:
        """Claim the worker of a running container with our key, or prove that it is claimed so.

        All requests carry the generation of our lease. Once the worker has seen a higher one it
        refuses them, as `StaleLease`; 0 is for work outside of any lease.

        Raises:
            StaleLease: The worker has seen a higher generation.
            WorkerRefused: It is claimed with another key.
            WorkerUnreachable: It does not answer.
        """
        ...

    async def is_healthy(self, container: Container) -> bool:
        """Whether the worker of a running container answers within a few seconds."""
        ...

    async def warm(self, container: Container) -> None:
        """Have an unclaimed worker load its tools; returns once it has.

        Raises:
            WorkerRefused: It cannot.
            WorkerUnreachable: It does not answer.
        """
        ...
