"""Publishing: a task's end state as a branch, and as a pull request where one is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from orchestrator.domain.ref_name import checked_branch
from orchestrator.domain.task import Task
from orchestrator.errors import (
    InvalidRequest,
    NothingToPublish,
    PublishConflict,
    PublishError,
    TaskIsDryRun,
    TaskNotEnded,
)

BRANCH_PREFIX = "berth/"
MAX_TITLE_CHARS = 200
MAX_BODY_CHARS = 50_000
_TITLE_FROM_QUERY_CHARS = 72
_SHOWN_PATHS = 20


class PublishMode(StrEnum):
    """What is made outside."""

    BRANCH = "branch"
    PULL_REQUEST = "pull_request"


class PublicationState(StrEnum):
    """How far a publication has come.

    `pending` until all branches are there, `pushed` until all pull requests are, then `published`.
    `withdrawn`: it failed and nothing of it is outside.
    """

    PENDING = "pending"
    PUSHED = "pushed"
    PUBLISHED = "published"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """A publication as it was asked for; None takes the default."""

    mode: PublishMode
    branch: str | None = None
    title: str | None = None
    body: str | None = None
    draft: bool = False


@dataclass(frozen=True, slots=True)
class PublishOrder:
    """A publication with its defaults filled in; two calls ask for the same if these are equal."""

    mode: PublishMode
    branch: str
    title: str
    body: str
    draft: bool


@dataclass(frozen=True, slots=True)
class Base:
    """The branch that a pull request is made against.

    `conflicts` names the paths that would have to be merged by hand, now that the branch has
    `moved` since the task's start.
    """

    branch: str
    moved: bool = False
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedRepository:
    """What becomes of one changed repository; `base` is None where no branch can be one."""

    name: str
    commit: str
    base: Base | None
    pull_request_url: str | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication as it is kept; `author` is fixed with it, since commits depend on it."""

    task_id: str
    order: PublishOrder
    author: str
    state: PublicationState = PublicationState.PENDING
    repositories: tuple[PublishedRepository, ...] = ()
    updated_at: datetime | None = field(default=None, compare=False)


def require_publishable(task: Task) -> None:
    """Refuse a task there is nothing to publish of.

    Raises:
        TaskNotEnded: It still runs.
        TaskIsDryRun: It was given so that nothing of it leaves.
        NothingToPublish: It changed nothing.
        PublishError: It has no repository, or a local one.
    """
    if task.ending is None:
        raise TaskNotEnded("The task still runs: publish it when it has ended.", task_id=task.id)
    if task.dry_run:
        raise TaskIsDryRun(
            "The task was a dry run, whose work stays here: run it again without dry_run.",
            task_id=task.id,
        )
    if task.workspace.is_scratch:
        raise PublishError("The task has no repository to publish to: apply its diff yourself.")
    if any(each.url.scheme == "file" for each in task.workspace.repositories):
        raise PublishError(
            "Local repositories are never written to: apply the task's diff with `git apply`."
        )
    if not task.ending.patch.diff:
        raise NothingToPublish("The task changed nothing that could be published.")


def order_for(request: PublishRequest, task: Task) -> PublishOrder:
    """The request with its defaults: a branch named for the task, its query, its answer.

    Raises:
        InvalidRequest: The branch or the title cannot be used.
    """
    branch = BRANCH_PREFIX + task.id if request.branch is None else request.branch
    title = _headline(task.query) if request.title is None else request.title.strip()
    if not title or len(title) > MAX_TITLE_CHARS or not title.isprintable():
        raise InvalidRequest(
            f"title must be one line of 1 to {MAX_TITLE_CHARS} characters.", field="title"
        )
    answer = task.ending.answer if task.ending is not None else ""
    body = answer[:MAX_BODY_CHARS] if request.body is None else request.body
    return PublishOrder(request.mode, checked_branch(branch), title, body.strip(), request.draft)


def require_same(kept: Publication, order: PublishOrder) -> None:
    """Refuse other arguments once something may be outside.

    Raises:
        PublishConflict: They differ.
    """
    if kept.order != order:
        raise PublishConflict(
            f"The task was published already, as {kept.order.mode} {kept.order.branch}: repeat "
            "that call to read or finish it, or run another task.",
            task_id=kept.task_id,
            branch=kept.order.branch,
        )


def commit_message(order: PublishOrder, task_id: str) -> str:
    """The message of the commits."""
    body = f"{order.body}\n\n" if order.body else ""
    return f"{order.title}\n\n{body}Berth-Task: {task_id}\n"


def description(publication: Publication, name: str, start: str, left_out: Sequence[str]) -> str:
    """The text of one repository's pull request, with what its readers should know.

    Args:
        publication: With the links of the pull requests that are there already.
        name: Which repository.
        start: The commit the task started from.
        left_out: What its patch could not carry.
    """
    own = next(each for each in publication.repositories if each.name == name)
    others = [each for each in publication.repositories if each.name != name]
    notes = [f"Task `{publication.task_id}` of Berth, from commit {start}."]
    if own.base is not None and own.base.moved:
        notes.append(f"`{own.base.branch}` has moved since.")
    if own.base is not None and own.base.conflicts:
        notes.append(f"It conflicts with it in {_paths(own.base.conflicts)}.")
    if left_out:
        notes.append(f"Changed but not part of this: {_paths(left_out)}.")
    linked = [f"- {each.name}: {each.pull_request_url or publication.order.branch}"
              for each in others]  # fmt: skip
    if linked:
        notes.append("\n".join(("Belongs together with", "", *linked)))
    return "\n\n".join((publication.order.body, "---", *notes)).strip()


def _headline(query: str) -> str:
    words = "".join(char if char.isprintable() else " " for char in query).split()
    line = " ".join(words)
    if len(line) > _TITLE_FROM_QUERY_CHARS:
        line = line[: _TITLE_FROM_QUERY_CHARS - 1].rstrip() + "…"
    return line


def _paths(paths: Sequence[str]) -> str:
    shown = ", ".join(f"`{path.replace('`', '')}`" for path in paths[:_SHOWN_PATHS])
    more = len(paths) - _SHOWN_PATHS
    return f"{shown} and {more} more" if more > 0 else shown
