"""Containers: what runs, and how to end it."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from orchestrator.api.schemas import ContainerBody
from orchestrator.api.services import Use
from orchestrator.errors import ContainerNotFound

router = APIRouter(tags=["containers"])


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
async def read_logs(name: str, services: Use, lines: int = 200) -> str:
    """The worker's log; tool output is not in it."""
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
    await services.runtime.remove(name)
    return Response(status_code=204)


async def _require(name: str, services: Use) -> None:
    if await services.runtime.poll(name) is None:
        raise ContainerNotFound(f"There is no container {name!r}.", container=name)
