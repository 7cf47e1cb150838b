"""Publishing: the one way a task's work leaves, when somebody asks for it."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, field_validator

from orchestrator.api.services import Use
from orchestrator.domain.publication import (
    MAX_BODY_CHARS,
    MAX_TITLE_CHARS,
    Publication,
    PublishedRepository,
    PublishMode,
    PublishRequest,
)
from orchestrator.domain.task import Task

router = APIRouter(tags=["tasks"])


class PublishBody(BaseModel):
    """What to make of a task's work."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"mode": "branch"},
                {
                    "mode": "pull_request",
                    "branch": "berth/slugify",
                    "title": "Add slugify",
                    "body": "A function and its test.",
                    "draft": True,
                },
            ]
        },
    )

    mode: Literal["branch", "pull_request"] = Field(
        description="Push a branch, or push it and open a pull (merge) request."
    )
    branch: str | None = Field(
        default=None, min_length=1, max_length=250, description="Default: berth/<task>."
    )
    title: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_TITLE_CHARS,
        description="Of the commit and the pull request; default: the query's beginning.",
    )
    body: str | None = Field(
        default=None, max_length=MAX_BODY_CHARS, description="Default: the task's answer."
    )
    draft: bool = Field(default=False, description="Open the pull request as a draft.")

    @field_validator("branch", "title", "body")
    @classmethod
    def _is_text(cls, text: str | None) -> str | None:
        if text is not None and "\0" in text:
            raise ValueError("it holds a null character")
        if text is not None:
            text.encode()  # raises a ValueError that pydantic reports
        return text

    def to_request(self) -> PublishRequest:
        """The request as the flow takes it."""
        mode = PublishMode(self.mode)
        return PublishRequest(mode, self.branch, self.title, self.body, self.draft)


class BaseBody(BaseModel):
    """The branch that the work is based on."""

    branch: str
    moved: bool = Field(description="True if it is no longer where the task started.")
    conflicts: list[str] = Field(description="Paths that have to be merged by hand.")


class PublishedRepositoryBody(BaseModel):
    """What was made of one repository."""

    name: str
    url: str
    branch: str
    commit: str
    base: BaseBody | None
    pull_request_url: str | None


class PublicationBody(BaseModel):
    """What was made of a task's work; the same call again answers the same."""

    task_id: str
    mode: Literal["branch", "pull_request"]
    state: Literal["published"] = "published"
    repositories: list[PublishedRepositoryBody]
    left_out: list[str] = Field(description="Changed in the task, but nothing a patch can carry.")


@router.post(
    "/tasks/{task_id}/publish", response_model=PublicationBody, summary="Publish a task's work"
)
async def publish_task(task_id: str, body: PublishBody, services: Use) -> PublicationBody:
    """Push the end state of a finished task as a branch and, if asked for, open a pull request.

    With several repositories, each changed one gets both, and all branches are made or none. A
    task is published once: the same call again answers the same and finishes what was cut off.
    """
    publication = await services.publish(task_id, body.to_request())
    return _publication_body(publication, await services.tasks.get(task_id))


def _publication_body(publication: Publication, task: Task) -> PublicationBody:
    urls = {each.name: str(each.url) for each in task.workspace.repositories}
    return PublicationBody(
        task_id=task.id,
        mode=publication.order.mode.value,
        repositories=[
            _repository_body(each, urls[each.name], publication.order.branch)
            for each in publication.repositories
        ],
        left_out=list(task.ending.patch.left_out) if task.ending else [],
    )


def _repository_body(
    repository: PublishedRepository, url: str, branch: str
) -> PublishedRepositoryBody:
    base = repository.base
    return PublishedRepositoryBody(
        name=repository.name,
        url=url,
        branch=branch,
        commit=repository.commit,
        base=base
        and BaseBody(branch=base.branch, moved=base.moved, conflicts=list(base.conflicts)),
        pull_request_url=repository.pull_request_url,
    )
