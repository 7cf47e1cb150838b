"""What a worker may answer.

A tool in the container could have taken the worker's place, so an answer is checked like any
input from outside.
"""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

A = TypeVar("A", bound="Answer")

Line = Annotated[str, StringConstraints(max_length=4_096)]
"""What is told to the model or the caller as it is."""


class Answer(BaseModel):
    """A JSON object with the fields of a subclass; others are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)


class Done(Answer):
    """The request was carried out; there is nothing to tell."""


class Clone(Answer):
    """A clone that the worker holds."""

    name: str
    tips: list[str]


class Clones(Answer):
    """All clones that the worker holds."""

    repositories: list[Clone]


class Prepared(Answer):
    """A task's tree stands; sentences about its dependencies."""

    dependencies: list[str]


class Changes(Answer):
    """A task's patch."""

    diff: str
    changed_files: list[str]
    left_out: list[str]


class Made(Answer):
    """A tree was made of a checkpoint; what it lacks. Images of before name nothing."""

    older: list[str] = []
    missing: list[str] = []


class PartCheckpoints(Answer):
    """Checkpoints of one repository."""

    name: str
    start: str
    commit: str
    state: str
    checkpoints: dict[str, str]


class Checkpoints(Answer):
    """Checkpoints of a task."""

    prepared: bool
    key: str
    failed: str
    ended: list[str]
    parts: list[PartCheckpoints]


class Kept(Answer):
    """Where a tool output is kept, relative to the root of the task's tree."""

    path: Line


class Refusal(Answer):
    """Why a request was refused."""

    detail: Line
    code: Line = ""


def read_answer(kind: type[A], body: bytes) -> A | None:
    """The answer in a body, or None if it is not one of this kind."""
    try:
        return kind.model_validate_json(body)
    except ValidationError:
        return None
