"""Containers: what runs, and how to end it."""

import re
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from orchestrator.api.services import Use
from orchestrator.domain.task import TaskFilter, TaskStatus
from orchestrator.domain.workspace import CONTAINER_PREFIX, ID_LENGTH
from orchestrator.errors import ContainerBusy, ContainerNotFound

router = APIRouter(tags=["containers"])

NAME = re.compile(rf"{CONTAINER_PREFIX}[0-9a-f]{{{ID_LENGTH}}}")
MAX_NAME_SHOWN = 80
MAX_LINES = 10_000


class ContainerBody(BaseModel):
    """A container of this deployment."""

    name: str
    workspace_id: str
    runtime: str
    state: Literal["running", "paused", "stopped", "broken"]
    created_at: datetime


@router.get(
    "/containers", response_model=list[ContainerBody], summary="This deployment's containers"
)
async def list_containers(services: Use) -> list[ContainerBody]:
    """All containers, in any state, sorted by name."""
    return [
        ContainerBody(
            name=each.name,
            workspace_id=each.workspace_id,
            runtime=each.runtime,
            state=each.state.value,
            created_at=each.created_at,
        )
        for each in await services.runtime.list()
    ]


@router.get(
    "/containers/{name}/logs",
    response_class=PlainTextResponse,
    summary="The last lines a container's worker wrote",
)
async def read_logs(
    name: str, services: Use, lines: Annotated[int, Query(ge=1, le=MAX_LINES)] = 200
) -> str:
    """The worker's log; tool output is not in it."""
    await _require(name, services)
    return await services.runtime.logs(name, lines)


@router.post("/containers/{name}/stop", status_code=204, summary="Stop a container")
async def stop_container(name: str, services: Use) -> Response:
    """End the container's processes; its work stays, and the next task starts it again."""
    await _require(name, services)
    await services.runtime.stop(name)
    return Response(status_code=204)


@router.delete("/containers/{name}", status_code=204, summary="Remove a container")
async def remove_container(name: str, services: Use) -> Response:
    """Delete the container and the trees of its tasks; their results stay on record."""
    await _require(name, services)
    workspace_id = name.removeprefix(CONTAINER_PREFIX)
    running = TaskFilter(status=TaskStatus.RUNNING, workspace_id=workspace_id, limit=1)
    for task in await services.tasks.list(running):
        raise ContainerBusy(
            f"Task {task.id} works in {name}: wait for its end, or cancel it with "
            f"POST /tasks/{task.id}/cancel.",
            container=name,
            task_id=task.id,
        )
    await services.runtime.remove(name)
    return Response(status_code=204)


async def _require(name: str, services: Use) -> None:
    # A name of another form must not get as far as a runtime, which makes paths of names.
    if not NAME.fullmatch(name) or await services.runtime.poll(name) is None:
        shown = name[:MAX_NAME_SHOWN]
        raise ContainerNotFound(
            f"There is no container {shown!r}: GET /containers lists them.", container=shown
        )
