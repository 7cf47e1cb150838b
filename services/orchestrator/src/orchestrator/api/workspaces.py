"""Workspaces: the repositories that tasks have been run in."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel

from orchestrator.api.services import Use

router = APIRouter(tags=["workspaces"])


class WorkspaceBody(BaseModel):
    """A workspace that tasks have used."""

    id: str
    repositories: list[str]
    container: str
    task_count: int
    created_at: datetime
    last_used_at: datetime


@router.get("/workspaces", response_model=list[WorkspaceBody], summary="Known workspaces")
async def list_workspaces(services: Use) -> list[WorkspaceBody]:
    """All workspaces with repositories, the latest used first."""
    return [
        WorkspaceBody(
            id=each.workspace.id,
            repositories=[str(repository.url) for repository in each.workspace.repositories],
            container=each.workspace.container_name,
            task_count=each.task_count,
            created_at=each.created_at,
            last_used_at=each.last_used_at,
        )
        for each in await services.tasks.workspaces()
        if not each.workspace.is_scratch
    ]
