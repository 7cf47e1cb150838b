"""The ways by which a task's work leaves: branches, and pull requests."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from orchestrator.domain.publication import Base, Publication
from orchestrator.domain.repository import RepositoryUrl
from orchestrator.domain.task import StartPoint


@dataclass(frozen=True, slots=True)
class Target:
    """A repository and where the work on it began."""

    url: RepositoryUrl
    start: StartPoint


@dataclass(frozen=True, slots=True)
class Change:
    """Work that is to become branches; equal changes become equal commits.

    Attributes:
        diff: A task's patch; with several repositories, paths begin with the repository's name.
        branch: The branch's short name.
        author: `Name <address>`.
        at: The commits' date.
    """

    task_id: str
    targets: tuple[Target, ...]
    diff: str = field(repr=False)
    branch: str
    message: str = field(repr=False)
    author: str
    at: datetime


@dataclass(frozen=True, slots=True)
class StagedCommit:
    """A commit on top of a repository's start, not yet outside."""

    target: Target
    commit: str
    base: Base | None

    @property
    def name(self) -> str:
        """The repository's name in the task's tree."""
        return self.target.start.name


class Staged(Protocol):
    """A change as commits: one for each repository it touches."""

    @property
    def commits(self) -> Sequence[StagedCommit]:
        """The commits, in the order of the repositories."""
        ...

    async def check(self, commit: StagedCommit) -> bool:
        """Ask the server whether it would take the branch; true if it is there already.

        Raises:
            BranchTaken: The branch is the default one, or there and at another commit.
            PushRefused: The server would not take it.
            RepositoryError: The server cannot be reached or refuses the credentials.
        """
        ...

    async def push(self, commit: StagedCommit) -> None:
        """Make the branch; one that is there already at this commit is left alone.

        Raises: as `check`.
        """
        ...

    async def withdraw(self, commit: StagedCommit) -> None:
        """Delete the branch if it is at this commit.

        Raises: as `check`.
        """
        ...


class Branches(Protocol):
    """Makes branches on the repositories' own servers."""

    def staged(self, change: Change) -> AbstractAsyncContextManager[Staged]:
        """The change as commits, on our side only.

        Raises:
            PublishError: The diff does not apply to the start.
            RepositoryError: A repository cannot be read any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Proposal:
    """A pull request to be opened; `head` and `base` are short names of branches."""

    head: str
    base: str
    title: str
    body: str = field(repr=False)
    draft: bool = False


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A pull request, or merge request, that is there."""

    number: int
    url: str


class Forge(Protocol):
    """One repository on a service that has pull requests.

    Each method raises `ForgeRefused` or `ForgeFailure`.
    """

    async def find(self, head: str, base: str) -> PullRequest | None:
        """The pull request between two branches, in whatever state it is."""
        ...

    async def open(self, proposal: Proposal) -> PullRequest:
        """Open a pull request."""
        ...

    async def describe(self, pull: PullRequest, body: str) -> None:
        """Replace a pull request's text."""
        ...


class Forges(Protocol):
    """Knows which forge a repository lies on."""

    async def of(self, url: RepositoryUrl) -> Forge:
        """The forge of a repository.

        Raises:
            ForgeUnknown: Its kind is not known, or there is no token for it.
        """
        ...


class PublicationStore(Protocol):
    """Publications, one a task."""

    async def begin(self, publication: Publication) -> Publication:
        """Record an intention, unless the task has one that was not withdrawn; what counts now."""
        ...

    async def keep(self, publication: Publication) -> Publication:
        """Record how far it has come."""
        ...
