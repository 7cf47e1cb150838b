"""What can be done with a task beyond reading and cancelling it: say more, fork, compare."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from orchestrator.api.request_bodies import BudgetBody, ModelName, Strict, said
from orchestrator.api.services import Use
from orchestrator.api.task_body import TaskBody, task_body
from orchestrator.api.tasks import IdempotencyKey, require_short
from orchestrator.domain.request import ForkRequest

router = APIRouter(tags=["tasks"])

MAX_STEP = 2**31 - 1
Step = Annotated[int, Query(ge=0, le=MAX_STEP)]


class MessageBody(Strict):
    """Something more to say to a task."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"text": "And write a test for the empty string."}]},
    )

    text: str = Field(min_length=1, description="What the model is to hear.")

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str) -> str:
        return said(text, "text")


class ForkBody(Strict):
    """Where to begin another task, and what it is to do."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"step": 4, "query": "Do it without a new dependency."},
                {"step": 7, "budget": {"max_steps": 80}},
            ]
        },
    )

    step: int = Field(
        ge=0, le=MAX_STEP, description="The last step to keep; 0 keeps only the first query."
    )
    query: str | None = Field(
        default=None,
        min_length=1,
        description="What to do from there; without it the fork simply goes on.",
    )
    budget: BudgetBody = BudgetBody()
    model: ModelName | None = Field(
        default=None, description="One of the deployment's models; default: the same as before."
    )

    @field_validator("query")
    @classmethod
    def _says_something(cls, query: str | None) -> str | None:
        return None if query is None else said(query, "query")


class DiffBody(BaseModel):
    """What changed between two steps; `diff` applies with `git apply`."""

    task_id: str
    changed_files: list[str]
    left_out: list[str] = Field(description="Changed things that a patch cannot carry.")
    diff: str


@router.post(
    "/tasks/{task_id}/messages",
    status_code=202,
    response_model=TaskBody,
    summary="Say more to a task",
)
async def say(
    task_id: str,
    body: MessageBody,
    response: Response,
    services: Use,
    idempotency_key: IdempotencyKey = None,
) -> TaskBody:
    """Answers with the task that will hear it.

    A running task hears it with its next model call. One that has ended is continued: by a new
    task that goes on in the same tree and conversation, with a budget of its own.
    """
    require_short(body.text, services)
    task = await services.say(task_id, body.text, idempotency_key or "")
    response.headers["Location"] = f"/tasks/{task.id}"
    return task_body(task)


@router.post(
    "/tasks/{task_id}/fork",
    status_code=202,
    response_model=TaskBody,
    summary="Begin another task from a step of this one",
)
async def fork(
    task_id: str,
    body: ForkBody,
    response: Response,
    services: Use,
    idempotency_key: IdempotencyKey = None,
) -> TaskBody:
    """A new task whose tree and conversation are this one's up to a step. This one is left alone.

    Ignored files do not come along. A task may be forked while it runs.
    """
    query = body.query or ""
    require_short(query, services)
    request = ForkRequest(
        task_id,
        body.step,
        query,
        body.budget.to_request(),
        body.model,
        idempotency_key or "",
    )
    task = await services.fork(request)
    response.headers["Location"] = f"/tasks/{task.id}"
    return task_body(task)


@router.get(
    "/tasks/{task_id}/diff",
    response_model=DiffBody,
    summary="What a task changed between two steps",
)
async def diff(
    task_id: str,
    services: Use,
    start: Annotated[Step, Query(alias="from")] = 0,
    end: Annotated[Step | None, Query(alias="to")] = None,
) -> DiffBody:
    """From the tree after step `from` (default: the task's beginning) to that after step `to`.

    By default to the last step. A step that changed nothing has the tree of the one before it. A
    container that sleeps is woken for this.
    """
    patch = await services.compare(task_id, start, end)
    return DiffBody(
        task_id=task_id,
        changed_files=list(patch.changed_files),
        left_out=list(patch.left_out),
        diff=patch.diff,
    )
