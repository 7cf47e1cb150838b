"""Bodies of requests about tasks."""

import base64
import binascii
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

MAX_REPOSITORIES = 16
MAX_FILES = 64

TaskId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
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
    model: ModelName | None = Field(
        default=None, description="One of the deployment's models; default: its first."
    )
    install_dependencies: bool = Field(
        default=False, description="Install the repository's dependencies before the work begins."
    )
    dry_run: bool = Field(
        default=False,
        description="Show the work and the commands run; its work can never be published.",
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
            model=self.model,
            install_dependencies=self.install_dependencies,
            continue_from=self.continue_from,
            key=key,
            dry_run=self.dry_run,
        )
