"""Git, on the orchestrator's side."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from orchestrator.domain.repository import RepositoryUrl
from orchestrator.domain.task import StartPoint


class Repositories(Protocol):
    """The orchestrator's side of git: fetches from outside, serves to workers."""

    async def start_point(self, url: RepositoryUrl, name: str, ref: str | None) -> StartPoint:
        """Bring our mirror up to date and resolve `ref` (None: the remote's HEAD) in it.

        Raises:
            RepositoryError: Refused, unreachable, empty, too large, needs credentials, no such ref.
        """
        ...

    async def bundle(
        self, url: RepositoryUrl, start: StartPoint, have: Sequence[str]
    ) -> AsyncGenerator[bytes, None] | None:
        """A git bundle of the mirror without what follows from the commits in `have`.

        None if a worker that has `have` lacks nothing for `start`. Whoever stops reading early
        must close it.
        """
        ...

    async def ensure(self, url: RepositoryUrl, start: StartPoint) -> None:
        """See that our mirror has a start commit, fetched once more where it was deleted.

        Raises:
            RepositoryError: The mirror lacks it, and it cannot be fetched.
        """
        ...

    async def read_file(self, url: RepositoryUrl, commit: str, path: str) -> bytes | None:
        """A file's content at a commit, or None if there is no such file."""
        ...
