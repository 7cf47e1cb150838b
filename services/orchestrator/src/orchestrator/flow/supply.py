"""Give a worker what a task starts from: its repositories' commits and its files."""

import asyncio
from contextlib import aclosing

from orchestrator.domain.task import NewTask, StartPoint
from orchestrator.domain.workspace import Repository
from orchestrator.ports import PreparedTask, Repositories, Worker


class Supply:
    """Brings a worker's clones up to date and makes the task's tree."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories

    async def __call__(self, task: NewTask, worker: Worker) -> PreparedTask:
        """Send what the worker lacks, then prepare the tree."""
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
        return await worker.prepare(
            task.id, task.start, task.files, install=task.install_dependencies
        )

    async def _send(
        self, repository: Repository, point: StartPoint, have: tuple[str, ...], worker: Worker
    ) -> None:
        bundle = await self._repositories.bundle(repository.url, point, have)
        if bundle is None:
            return
        async with aclosing(bundle):  # so that git ends at once when we do
            await worker.receive(repository.name, str(repository.url), bundle)
