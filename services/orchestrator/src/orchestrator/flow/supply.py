"""Give a worker what a task starts from: its repositories' commits and its files."""

import asyncio
from contextlib import aclosing

from orchestrator.domain.task import NewTask, StartPoint
from orchestrator.domain.workspace import Repository
from orchestrator.errors import UnknownRef
from orchestrator.flow.inherit import Inherit
from orchestrator.ports import PreparedTask, Repositories, Worker


class Supply:
    """Brings a worker's clones up to date and makes the task's tree."""

    def __init__(self, repositories: Repositories, inherit: Inherit) -> None:
        self._repositories = repositories
        self._inherit = inherit

    async def __call__(self, task: NewTask, worker: Worker) -> PreparedTask:
        """Send what the worker lacks, then prepare the tree.

        Raises:
            TreeGone: The task builds on another whose tree the worker has not.
        """
        if task.start:
            held = {each.name: each.tips for each in await worker.repositories()}
            await asyncio.gather(
                *(
                    self._send(repository, point, held.get(repository.name, ()), worker)
                    for repository, point in zip(
                        task.workspace.repositories, task.start, strict=True
                    )
                )
            )
        if task.lineage is not None:
            return await self._inherit(task, task.lineage, worker)
        return await worker.prepare(
            task.id, task.start, task.files, install=task.install_dependencies
        )

    async def _send(
        self, repository: Repository, point: StartPoint, have: tuple[str, ...], worker: Worker
    ) -> None:
        try:
            bundle = await self._repositories.bundle(repository.url, point, have)
        except UnknownRef:
            # The task was accepted by another orchestrator: our own mirror lacks its commit.
            await self._repositories.start_point(repository.url, repository.name, point.commit)
            bundle = await self._repositories.bundle(repository.url, point, have)
        if bundle is None:
            return
        async with aclosing(bundle):  # so that git ends at once when we do
            await worker.receive(repository.name, str(repository.url), bundle)
