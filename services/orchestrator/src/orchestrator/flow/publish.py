"""Publish a task's work: all of its branches or none, then their pull requests."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from weakref import WeakValueDictionary

import structlog

from orchestrator.domain.publication import (
    Publication,
    PublicationState,
    PublishedRepository,
    PublishMode,
    PublishRequest,
    commit_message,
    description,
    order_for,
    require_publishable,
    require_same,
)
from orchestrator.domain.task import Task
from orchestrator.errors import BerthError, ForgeRefused, ForgeUnknown, NothingToPublish
from orchestrator.ports import (
    Branches,
    Change,
    Forges,
    Proposal,
    PublicationStore,
    Staged,
    StagedCommit,
    Target,
    TaskStore,
)

log = structlog.get_logger(__name__)


class Publish:
    """Publishes tasks, each once.

    The intention is recorded before anything leaves, commits are the same each time, and what is
    there already counts as done: a call that a crash cut off is finished by repeating it.

    Args:
        tasks: The tasks.
        publications: What was published.
        branches: Makes branches.
        forges: Opens pull requests.
        author: `Name <address>` of the commits.
    """

    def __init__(
        self,
        *,
        tasks: TaskStore,
        publications: PublicationStore,
        branches: Branches,
        forges: Forges,
        author: str,
    ) -> None:
        self._tasks = tasks
        self._publications = publications
        self._branches = branches
        self._forges = forges
        self._author = author
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, task_id: str, request: PublishRequest) -> Publication:
        """Publish a task's end state; a repeated call answers the same.

        Raises:
            TaskNotFound: No task has this id.
            PublishError: And its kinds, for what cannot be published.
            RepositoryError: A repository's server cannot be reached or refuses the credentials.
            ForgeFailure: The branches are there; call again for the pull requests.
        """
        task = await self._tasks.get(task_id)
        require_publishable(task)
        order = order_for(request, task)
        async with self._locks.setdefault(task_id, asyncio.Lock()):
            kept = await self._publications.begin(Publication(task_id, order, self._author))
            require_same(kept, order)
            if kept.state is PublicationState.PENDING:
                kept = await self._push(task, kept)
            if kept.state is PublicationState.PUSHED:
                kept = await self._open_pull_requests(task, kept)
                log.info("published", task=task_id, mode=order.mode, branch=order.branch)
            return kept

    async def _push(self, task: Task, kept: Publication) -> Publication:
        """Make all branches, or none."""
        async with AsyncExitStack() as stack:
            try:
                change = self._branches.staged(_change(task, kept))
                staged = await stack.enter_async_context(change)
                await self._require_possible(kept, staged)
            except BerthError:
                # What a publication is to make is recorded right before its first push.
                if not kept.repositories:
                    await self._publications.keep(replace(kept, state=PublicationState.WITHDRAWN))
                raise
            return await self._push_staged(kept, staged)

    async def _require_possible(self, kept: Publication, staged: Staged) -> None:
        """Refuse now what would fail when the branches are there already."""
        if not staged.commits:
            raise NothingToPublish("The task's diff changes nothing.")
        if kept.order.mode is PublishMode.BRANCH:
            return
        for commit in staged.commits:
            if commit.base is None:
                raise ForgeUnknown(
                    f"{commit.target.url} has no branch that a pull request could be made "
                    "against: publish with mode branch."
                )
            forge = await self._forges.of(commit.target.url)
            await forge.find(kept.order.branch, commit.base.branch)

    async def _push_staged(self, kept: Publication, staged: Staged) -> Publication:
        begun: list[StagedCommit] = []
        try:
            for commit in staged.commits:
                begun += [commit] if await staged.check(commit) else []
            planned = tuple(
                PublishedRepository(each.name, each.commit, each.base) for each in staged.commits
            )
            kept = await self._publications.keep(replace(kept, repositories=planned))
            for commit in staged.commits:
                if commit not in begun:
                    begun.append(commit)
                    await staged.push(commit)
        except BerthError:
            if await _withdrawn(staged, begun):
                nothing = replace(kept, state=PublicationState.WITHDRAWN, repositories=())
                await self._publications.keep(nothing)
            raise
        return await self._publications.keep(replace(kept, state=PublicationState.PUSHED))

    async def _open_pull_requests(self, task: Task, kept: Publication) -> Publication:
        if kept.order.mode is PublishMode.PULL_REQUEST:
            try:
                for repository in kept.repositories:
                    if repository.pull_request_url is None:
                        kept = await self._open(task, kept, repository)
            except ForgeRefused:
                # Repeating would be refused for ever, and other arguments be a conflict.
                if all(each.pull_request_url is None for each in kept.repositories):
                    await self._undo(task, kept)
                raise
            if len(kept.repositories) > 1:
                await self._link(task, kept)
        return await self._publications.keep(replace(kept, state=PublicationState.PUBLISHED))

    async def _open(
        self, task: Task, kept: Publication, repository: PublishedRepository
    ) -> Publication:
        target, base = _target(task, repository), _base_branch(repository)
        forge = await self._forges.of(target.url)
        head = kept.order.branch
        pull = await forge.find(head, base)
        if pull is None:
            body = _description(task, kept, repository)
            title, draft = kept.order.title, kept.order.draft
            pull = await forge.open(Proposal(head, base, title, body, draft))
        opened = replace(repository, pull_request_url=pull.url)
        repositories = tuple(
            opened if each.name == repository.name else each for each in kept.repositories
        )
        return await self._publications.keep(replace(kept, repositories=repositories))

    async def _undo(self, task: Task, kept: Publication) -> None:
        """Delete the branches that no pull request was taken for."""
        try:
            async with self._branches.staged(_change(task, kept)) as staged:
                if not await _withdrawn(staged, staged.commits):
                    return
        except BerthError as failure:
            log.warning("branches_left_behind", code=failure.code, detail=failure.detail)
            return
        nothing = replace(kept, state=PublicationState.WITHDRAWN, repositories=())
        await self._publications.keep(nothing)

    async def _link(self, task: Task, kept: Publication) -> None:
        """Name each pull request in the others, now that all are there."""
        for repository in kept.repositories:
            forge = await self._forges.of(_target(task, repository).url)
            pull = await forge.find(kept.order.branch, _base_branch(repository))
            if pull is not None:
                await forge.describe(pull, _description(task, kept, repository))


async def _withdrawn(staged: Staged, begun: Sequence[StagedCommit]) -> bool:
    """Delete what was made; false if something may be left."""
    try:
        for commit in begun:
            await staged.withdraw(commit)
    except BerthError as failure:
        log.warning("branches_left_behind", code=failure.code, detail=failure.detail)
        return False
    return True


def _change(task: Task, kept: Publication) -> Change:
    if task.ending is None or task.finished_at is None:
        raise RuntimeError("only tasks that have ended are published")
    urls = {each.name: each.url for each in task.workspace.repositories}
    return Change(
        task_id=task.id,
        targets=tuple(Target(urls[start.name], start) for start in task.start),
        diff=task.ending.patch.diff,
        branch=kept.order.branch,
        message=commit_message(kept.order, task.id),
        author=kept.author,
        at=task.finished_at,
    )


def _target(task: Task, repository: PublishedRepository) -> Target:
    url = next(each.url for each in task.workspace.repositories if each.name == repository.name)
    return Target(url, next(each for each in task.start if each.name == repository.name))


def _base_branch(repository: PublishedRepository) -> str:
    if repository.base is None:
        raise RuntimeError("a pull request is planned for what has a base only")
    return repository.base.branch


def _description(task: Task, kept: Publication, repository: PublishedRepository) -> str:
    left_out = task.ending.patch.left_out if task.ending is not None else ()
    start = _target(task, repository).start.commit
    return description(kept, repository.name, start, left_out)
