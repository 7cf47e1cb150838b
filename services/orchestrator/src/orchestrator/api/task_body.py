"""A task as the API shows it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from orchestrator.domain.task import Task


class RepositoryBody(BaseModel):
    """A repository and the commit a task started from."""

    url: str
    name: str
    ref: str
    commit: str


class TaskWorkspaceBody(BaseModel):
    """Where a task ran."""

    id: str
    container: str
    runtime: str
    repositories: list[RepositoryBody]


class ReceiptBody(BaseModel):
    """What a task cost."""

    prompt_tokens: int
    completion_tokens: int
    model_seconds: float
    tool_seconds: float
    wall_seconds: float


class ErrorBody(BaseModel):
    """Why a task failed."""

    code: str
    detail: str


class ForkedFromBody(BaseModel):
    """The step of another task that a fork began from."""

    task_id: str
    step: int


class CommandBody(BaseModel):
    """A tool call that a dry run made."""

    step: int
    tool: str
    arguments: dict[str, Any]
    is_error: bool


class TaskBody(BaseModel):
    """A task and, once it has ended, its result."""

    task_id: str
    continues: str | None = Field(default=None, description="The task in whose tree it goes on.")
    continued_by: str | None = Field(default=None, description="The task that goes on in its tree.")
    forked_from: ForkedFromBody | None = None
    status: Literal["running", "succeeded", "failed", "cancelled"]
    stop_reason: str | None = None
    query: str
    model: str = Field(default="", description="The model's name at the endpoint.")
    answer: str = ""
    changed_files: list[str] = []
    diff: str = ""
    steps: int = 0
    dry_run: bool = False
    commands: list[CommandBody] = Field(
        default_factory=list, description="What a dry run has run; empty for other tasks."
    )
    egress: list[dict[str, Any]] = Field(
        default_factory=list,
        description="What a dry run reached, was refused and moved; empty for other tasks.",
    )
    workspace: TaskWorkspaceBody
    receipt: ReceiptBody | None = None
    error: ErrorBody | None = None
    notices: list[str] = []
    created_at: datetime
    finished_at: datetime | None = None


def task_body(task: Task) -> TaskBody:
    """A task as the API shows it."""
    body = TaskBody(
        task_id=task.id,
        status=task.status.value,
        query=task.query,
        model=task.model,
        dry_run=task.dry_run,
        workspace=_workspace_body(task),
        created_at=task.created_at,
        finished_at=task.finished_at,
    )
    _add_lineage(body, task)
    ending = task.ending
    if ending is None:
        return body
    body.stop_reason = ending.stop_reason.value
    body.answer = ending.answer
    body.changed_files = list(ending.patch.changed_files)
    body.diff = ending.patch.diff
    body.steps = ending.steps
    body.receipt = ReceiptBody(
        prompt_tokens=ending.receipt.prompt_tokens,
        completion_tokens=ending.receipt.completion_tokens,
        model_seconds=round(ending.receipt.model_seconds, 3),
        tool_seconds=round(ending.receipt.tool_seconds, 3),
        wall_seconds=round(ending.receipt.wall_seconds, 3),
    )
    if ending.error is not None:
        body.error = ErrorBody(code=ending.error.code, detail=ending.error.detail)
    body.notices = list(ending.notices)
    return body


def _add_lineage(body: TaskBody, task: Task) -> None:
    body.continued_by = task.continued_by
    lineage = task.lineage
    if lineage is None:
        return
    if lineage.step is None:
        body.continues = lineage.parent
    else:
        body.forked_from = ForkedFromBody(task_id=lineage.parent, step=lineage.step)


def _workspace_body(task: Task) -> TaskWorkspaceBody:
    urls = {each.name: str(each.url) for each in task.workspace.repositories}
    return TaskWorkspaceBody(
        id=task.workspace.id,
        container=task.workspace.container_name,
        runtime=task.runtime,
        repositories=[
            RepositoryBody(
                url=urls[point.name], name=point.name, ref=point.ref, commit=point.commit
            )
            for point in task.start
        ],
    )
