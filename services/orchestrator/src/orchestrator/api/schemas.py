"""Bodies of requests and responses."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from orchestrator.domain.request import BudgetRequest, InlineFile, TaskRequest
from orchestrator.domain.task import Task

MAX_REPOSITORIES = 16
MAX_FILES = 64

TaskId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]


class Strict(BaseModel):
    """A body of a request: what it does not know, it refuses."""

    model_config = ConfigDict(extra="forbid", strict=True)


def said(text: str, name: str) -> str:
    """A text that says something and can be stored.

    Raises:
        ValueError: It is blank, or half of a character pair.
    """
    if not text.strip():
        raise ValueError(f"the {name} is empty: say what to find out or to do")
    text.encode()
    return text


class BudgetBody(Strict):
    """Limits of one task; what is left out takes the deployment's default."""

    max_steps: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)

    def to_request(self) -> BudgetRequest:
        """The limits as the flow takes them."""
        return BudgetRequest(self.max_steps, self.max_tokens, self.max_seconds)


class FileBody(Strict):
    """A file given with the request."""

    name: str = Field(min_length=1, max_length=512)
    content: str
    encoding: Literal["utf-8", "base64"] = "utf-8"

    @field_validator("content")
    @classmethod
    def _no_surrogates(cls, content: str) -> str:
        content.encode()  # raises a ValueError that pydantic reports
        return content

    @model_validator(mode="after")
    def _decodes(self) -> Self:
        if self.encoding == "base64":
            try:
                base64.b64decode(self.content, validate=True)
            except binascii.Error:
                raise ValueError("content is not valid base64") from None
        return self

    def to_file(self) -> InlineFile:
        """The file with its bytes."""
        if self.encoding == "base64":
            return InlineFile(self.name, base64.b64decode(self.content))
        return InlineFile(self.name, self.content.encode())


def _kind_of_file(value: object) -> str:
    return NAMED if isinstance(value, str) else GIVEN


# The tags would be parts of an error's location; their form lets `api.problem` leave them out.
NAMED, GIVEN = "<named>", "<given>"
FileChoice = Annotated[
    Annotated[FileBody, Tag(GIVEN)] | Annotated[str, Tag(NAMED)], Discriminator(_kind_of_file)
]


class OrchestrateBody(Strict):
    """A question or a job, and the repository it is about."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "query": "Summarise the structure of this repository.",
                    "repo_url": "https://github.com/octocat/Hello-World",
                },
                {
                    "query": "Write a function slugify(text) and a test for it.",
                    "repo_url": "https://github.com/octocat/Hello-World",
                    "ref": "master",
                    "files": [{"name": "notes.txt", "content": "Use only the standard library."}],
                    "budget": {"max_steps": 30, "max_seconds": 300},
                },
            ]
        },
    )

    query: str = Field(min_length=1, description="What to find out or to do.")
    repo_url: Url | None = Field(default=None, description="The repository to work in.")
    repo_urls: list[Url] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_REPOSITORIES,
        description="Several repositories, side by side in one workspace.",
    )
    ref: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="Branch, tag or commit to start from; default: the remote's HEAD.",
    )
    files: list[FileChoice] = Field(
        default_factory=list,
        max_length=MAX_FILES,
        description=(
            "Files placed under files/: given here, or named: uploaded before, or a path in the "
            "repository."
        ),
    )
    budget: BudgetBody = BudgetBody()
    install_dependencies: bool = Field(
        default=False, description="Install the repository's dependencies before the work begins."
    )

    continue_from: TaskId | None = Field(
        default=None,
        description=(
            "A task that has ended: the new one goes on in its tree and its conversation. "
            "Instead of repo_url and ref."
        ),
    )

    @field_validator("query")
    @classmethod
    def _says_something(cls, query: str) -> str:
        return said(query, "query")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.repo_url is not None and self.repo_urls is not None:
            raise ValueError("give repo_url or repo_urls, not both")
        return self

    def to_request(self, key: str = "") -> TaskRequest:
        """The request as the flow takes it; `key` is the caller's own name for it."""
        alone = () if self.repo_url is None else (self.repo_url,)
        return TaskRequest(
            query=self.query,
            repo_urls=tuple(self.repo_urls or alone),
            ref=self.ref,
            files=tuple(each if isinstance(each, str) else each.to_file() for each in self.files),
            budget=self.budget.to_request(),
            install_dependencies=self.install_dependencies,
            continue_from=self.continue_from,
            key=key,
        )


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


class TaskBody(BaseModel):
    """A task and, once it has ended, its result."""

    task_id: str
    continues: str | None = Field(default=None, description="The task in whose tree it goes on.")
    continued_by: str | None = Field(default=None, description="The task that goes on in its tree.")
    forked_from: ForkedFromBody | None = None
    status: Literal["running", "succeeded", "failed", "cancelled"]
    stop_reason: str | None = None
    query: str
    answer: str = ""
    changed_files: list[str] = []
    diff: str = ""
    steps: int = 0
    workspace: TaskWorkspaceBody
    receipt: ReceiptBody | None = None
    error: ErrorBody | None = None
    notices: list[str] = []
    created_at: datetime
    finished_at: datetime | None = None


class ContainerBody(BaseModel):
    """A container of this deployment."""

    name: str
    workspace_id: str
    runtime: str
    state: Literal["running", "paused", "stopped", "broken"]
    created_at: datetime


class WorkspaceBody(BaseModel):
    """A workspace that tasks have used."""

    id: str
    repositories: list[str]
    container: str
    task_count: int
    created_at: datetime
    last_used_at: datetime


class UploadBody(BaseModel):
    """An uploaded file; `size` in bytes."""

    name: str
    size: int
    updated_at: datetime


def task_body(task: Task) -> TaskBody:
    """A task as the API shows it."""
    body = TaskBody(
        task_id=task.id,
        status=task.status.value,
        query=task.query,
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
