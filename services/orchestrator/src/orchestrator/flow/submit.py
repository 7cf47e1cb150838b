"""Accept a task: check everything that can be checked before anything is started."""

import asyncio

from orchestrator.domain.offer import Offer
from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.request import TaskRequest
from orchestrator.domain.task import NewTask, Task
from orchestrator.domain.workspace import Workspace, scratch_workspace, workspace_of
from orchestrator.errors import InvalidRequest
from orchestrator.flow.accept import Accept
from orchestrator.flow.attach import Attach
from orchestrator.flow.continuation import Continue
from orchestrator.ports import Repositories

SCOPE = "orchestrate"


class Submit:
    """Turns a request into a recorded and queued task, which no crash can lose any more.

    Whatever is wrong with the request is said here, before a container, a directory or a row
    exists for it.
    """

    def __init__(
        self,
        *,
        repositories: Repositories,
        attach: Attach,
        accept: Accept,
        go_on: Continue,
        offer: Offer,
    ) -> None:
        self._repositories = repositories
        self._attach = attach
        self._accept = accept
        self._go_on = go_on
        self._offer = offer

    async def __call__(self, request: TaskRequest) -> Task:
        """Check, resolve and record a task.

        Raises:
            InvalidRequest: And its kinds, for everything the caller can mend.
        """
        if request.continue_from is not None:
            return await self._go_on(request, request.continue_from)
        admission = await self._accept.admit(SCOPE, request.key, request)
        if admission.known is not None:
            return await self._accept.queued(admission.known)
        workspace = _workspace(request, admission.task_id)
        budget = self._offer.budget(request.budget)
        model = self._offer.model_named(request.model)
        start = await asyncio.gather(
            *(
                self._repositories.start_point(repository.url, repository.name, request.ref)
                for repository in workspace.repositories
            )
        )
        return await self._accept(
            NewTask(
                id=admission.task_id,
                query=request.query,
                workspace=workspace,
                start=tuple(start),
                files=await self._attach(request.files, workspace, start),
                budget=budget,
                install_dependencies=request.install_dependencies,
                request_digest=admission.digest,
                dry_run=request.dry_run,
                model=model,
            )
        )


def _workspace(request: TaskRequest, task_id: str) -> Workspace:
    if request.repo_urls:
        return workspace_of([parse_repository_url(url) for url in request.repo_urls])
    if request.ref is not None:
        raise InvalidRequest("ref was given without a repository: give repo_url too.", field="ref")
    return scratch_workspace(task_id)
