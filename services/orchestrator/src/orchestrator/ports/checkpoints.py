"""The orchestrator's own copy of checkpoints, as git."""

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.domain.repository import RepositoryUrl
from orchestrator.domain.task import StartPoint


@dataclass(frozen=True, slots=True)
class Origin:
    """A repository of a workspace and where a task starts in it; a scratch task has neither."""

    workspace_id: str
    name: str
    url: RepositoryUrl | None = None
    start: StartPoint | None = None

    @property
    def bases(self) -> tuple[str, ...]:
        """The commits of the repository's own history that a task's checkpoints build on."""
        return () if self.start is None else (self.start.commit,)


class CheckpointStore(Protocol):
    """Checks the commits of checkpoints and hands them out. It can be filled again at any time.

    Every method may raise:
        RepositoryError: The repository's own history cannot be had.
        StorageFailure: The disk does not do what it should.
    """

    async def receive(
        self, origin: Origin, bundle: AsyncGenerator[bytes, None], tips: Collection[str], path: Path
    ) -> None:
        """Write a container's bundle to `path` and take its commits in, once they are checked.

        Raises:
            BundleRefused: It is broken, too large or crafted, or does not bring `tips`.
            WorkerUnreachable: The container went away.
        """
        ...

    async def add(self, origin: Origin, path: Path) -> None:
        """Take in the commits of a stored bundle; what it builds on must be in.

        Raises:
            BundleRefused: As for `receive`.
        """
        ...

    async def held(self, origin: Origin, commits: Collection[str]) -> set[str]:
        """Which of these commits are in."""
        ...

    def bundle(
        self, origin: Origin, names: Mapping[str, str], without: Collection[str]
    ) -> AsyncGenerator[bytes, None]:
        """A git bundle of commits by their references' names, without what leads to others."""
        ...

    async def shed(self, workspace_id: str, *, is_over: bool = False) -> bool:
        """Drop what is kept of a workspace if that has become too much; nothing may use it.

        Args:
            workspace_id: The workspace.
            is_over: No task will use it again: any of it is too much.

        Returns:
            Whether it was dropped.
        """
        ...
