"""A workspace: an ordered set of repositories that has its own container."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.repository import RepositoryUrl

ID_LENGTH = 16
CONTAINER_PREFIX = "repo-"
POOL_PREFIX = "pool-"
"""Begins the names of containers that no workspace owns yet."""

FILES = "files"
"""The directory of a task's tree that holds the files its caller gave."""


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository of a workspace and the directory name it has in every task's tree."""

    url: RepositoryUrl
    name: str


@dataclass(frozen=True, slots=True)
class Workspace:
    """One or more repositories, or none for a scratch workspace."""

    id: str
    key: str
    repositories: tuple[Repository, ...]

    @property
    def container_name(self) -> str:
        """The name of this workspace's container on every runtime."""
        return CONTAINER_PREFIX + self.id

    @property
    def is_scratch(self) -> bool:
        """True if no repository belongs to it."""
        return not self.repositories


@dataclass(frozen=True, slots=True)
class WorkspaceRecord:
    """A workspace as it is kept, with its use."""

    workspace: Workspace
    created_at: datetime
    last_used_at: datetime
    task_count: int


def owner_of(container_name: str) -> str:
    """The id of the workspace that owns the container of this name; empty if none can."""
    owner = container_name.removeprefix(CONTAINER_PREFIX)
    return "" if owner == container_name else owner


def workspace_of(urls: Sequence[RepositoryUrl]) -> Workspace:
    """The workspace of these repositories; the order counts, repeats do not.

    Raises:
        ValueError: There is no repository. Without one, every task needs a workspace of its own:
            see `scratch_workspace`.
    """
    if not urls:
        raise ValueError("a workspace of repositories needs at least one")
    unique = tuple(dict.fromkeys(urls))
    return _workspace("\n".join(str(url) for url in unique), _named(unique))


def scratch_workspace(task_id: str) -> Workspace:
    """An empty workspace that belongs to one task alone."""
    return _workspace(f"scratch:{task_id}", ())


def _workspace(key: str, repositories: tuple[Repository, ...]) -> Workspace:
    digest = hashlib.sha256(key.encode()).hexdigest()[:ID_LENGTH]
    return Workspace(digest, key, repositories)


def _named(urls: Sequence[RepositoryUrl]) -> tuple[Repository, ...]:
    # Beside several repositories lies the directory of the caller's files.
    taken = {FILES} if len(urls) > 1 else set()
    repositories = []
    for url in urls:
        name, number = url.name, 1
        while name.lower() in taken:
            number += 1
            name = f"{url.name}-{number}"
        taken.add(name.lower())
        repositories.append(Repository(url, name))
    return tuple(repositories)
