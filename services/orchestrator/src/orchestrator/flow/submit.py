"""Accept a task: check everything that can be checked before anything is started."""

import asyncio
import secrets

from pydantic import JsonValue

from orchestrator.domain.budget import Budget
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.request import TaskRequest, granted
from orchestrator.domain.task import NewTask, StartPoint
from orchestrator.domain.workspace import Workspace, scratch_workspace, workspace_of
from orchestrator.errors import InvalidRequest
from orchestrator.flow.attach import Attach
from orchestrator.flow.inputs import Inputs
from orchestrator.ports import Engine, EventLog, Repositories, TaskStore


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
        inputs: Inputs,
        tasks: TaskStore,
        events: EventLog,
        engine: Engine,
        largest_budget: Budget,
        runtime: str,
    ) -> None:
        self._repositories = repositories
        self._attach = attach
        self._inputs = inputs
        self._tasks = tasks
        self._events = events
        self._engine = engine
        self._largest_budget = largest_budget
        self._runtime = runtime

    async def __call__(self, request: TaskRequest) -> NewTask:
        """Check, resolve and record a task.

        Raises:
            InvalidRequest: And its kinds, for everything the caller can mend.
        """
        task_id = secrets.token_hex(8)
        workspace = _workspace(request, task_id)
        budget = granted(request.budget, self._largest_budget)
        start = await asyncio.gather(
            *(
                self._repositories.start_point(repository.url, repository.name, request.ref)
                for repository in workspace.repositories
            )
        )
        task = NewTask(
            id=task_id,
            query=request.query,
            workspace=workspace,
            start=tuple(start),
            files=await self._attach(request.files, workspace, start),
            budget=budget,
            install_dependencies=request.install_dependencies,
            dry_run=request.dry_run,
        )
        await self._inputs.keep(task_id, task.files)
        await self._tasks.add(task, self._runtime)
        await self._events.append(task_id, NewEvent(EventKind.ACCEPTED, 0, _accepted(task)))
        await self._engine.submit(task_id, workspace.id)
        return task


def _workspace(request: TaskRequest, task_id: str) -> Workspace:
    if request.repo_urls:
        return workspace_of([parse_repository_url(url) for url in request.repo_urls])
    if request.ref is not None:
        raise InvalidRequest("ref was given without a repository: give repo_url too.", field="ref")
    return scratch_workspace(task_id)


def _accepted(task: NewTask) -> dict[str, JsonValue]:
    return {
        "workspace": task.workspace.id,
        "repositories": [_started_from(task.workspace, point) for point in task.start],
        "files": [file.name for file in task.files],
    }


def _started_from(workspace: Workspace, point: StartPoint) -> dict[str, JsonValue]:
    url = next(str(each.url) for each in workspace.repositories if each.name == point.name)
    return {"url": url, "name": point.name, "commit": point.commit, "ref": point.ref}
