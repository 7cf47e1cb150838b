"""Containers: what runs, and how to end it."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from orchestrator.api.services import Use

router = APIRouter(tags=["containers"])

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
        for each in await services.containers.list()
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
    return await services.containers.logs(name, lines)


@router.post("/containers/{name}/stop", status_code=204, summary="Stop a container")
async def stop_container(name: str, services: Use) -> Response:
    """End the container's processes; its work stays, and the next task starts it again."""
    await services.containers.stop(name)
    return Response(status_code=204)


@router.delete("/containers/{name}", status_code=204, summary="Remove a container")
async def remove_container(name: str, services: Use) -> Response:
    """Delete the container and the trees of its tasks; their results stay on record."""
    await services.containers.remove(name)
    return Response(status_code=204)
