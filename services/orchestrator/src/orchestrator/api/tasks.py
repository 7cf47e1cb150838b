"""Tasks: give one, read one, follow one."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from orchestrator.api.dry_run import shown_task
from orchestrator.api.live import narrated, service_stopping
from orchestrator.api.request_bodies import OrchestrateBody
from orchestrator.api.services import Services, Use
from orchestrator.api.sse import HEADERS, frame, with_heartbeats
from orchestrator.api.task_body import TaskBody, task_body
from orchestrator.domain.events import Event
from orchestrator.domain.task import TaskFilter, TaskStatus
from orchestrator.errors import InvalidRequest, RequestTooLarge, ServiceStopping, TaskNotFound

router = APIRouter(tags=["tasks"])

EVENT_STREAM = "text/event-stream"
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        description=(
            "Your own name for this request: sent again with it, the request takes effect once."
        ),
    ),
]
EVENT_NUMBER = re.compile("[0-9]{1,9}")


@router.post(
    "/orchestrate",
    response_model=TaskBody,
    summary="Run a task and return its answer and patch",
    responses={200: {"content": {EVENT_STREAM: {}}}},
)
async def orchestrate(
    body: OrchestrateBody, request: Request, services: Use, idempotency_key: IdempotencyKey = None
) -> Response | TaskBody:
    """Run a task in its repository's container.

    Waits for the end and returns the result. With `Accept: text/event-stream` the task's events
    are streamed as they happen, the result comes last as the event `result`. What the model says
    comes between them as `text`: see `GET /tasks/{task_id}/events`.
    """
    require_short(body.query, services)
    task = await services.submit(body.to_request(idempotency_key or ""))
    headers = {"Location": f"/tasks/{task.id}"}
    if "respond-async" in request.headers.get("prefer", "").lower():
        accepted = task_body(await services.tasks.get(task.id)).model_dump(mode="json")
        applied = {"Preference-Applied": "respond-async"}
        return JSONResponse(accepted, status_code=202, headers=headers | applied)
    if EVENT_STREAM in request.headers.get("accept", ""):
        frames = with_heartbeats(_events_then_result(services, task.id))
        return StreamingResponse(frames, media_type=EVENT_STREAM, headers=HEADERS | headers)
    return await _ended(services, task.id)


@router.get("/tasks", response_model=list[TaskBody], summary="Tasks, the newest first")
async def list_tasks(
    services: Use,
    status: TaskStatus | None = None,
    workspace: Annotated[str | None, Query(max_length=64)] = None,
    before: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[TaskBody]:
    """A page of tasks; the id of the last one, given as `before`, brings the next page."""
    if before is not None:
        await _require_page_end(services, before)
    found = await services.tasks.list(TaskFilter(status, workspace, before, limit))
    return [task_body(each) for each in found]


@router.post(
    "/tasks/{task_id}/cancel", status_code=202, response_model=TaskBody, summary="Cancel a task"
)
async def cancel_task(task_id: str, services: Use) -> TaskBody:
    """Ask for a task's end; it keeps the work done so far. A task that has ended stays as it is."""
    return task_body(await services.tasks.request_cancel(task_id))


@router.get("/tasks/{task_id}", response_model=TaskBody, summary="A task and its result")
async def read_task(task_id: str, services: Use) -> TaskBody:
    """The task as it stands now; while it runs `steps` counts those completed so far."""
    task = await services.tasks.get(task_id)
    body = await shown_task(task, services.events)
    if task.ending is None:
        body.steps = await services.tasks.last_step(task_id)
    return body


@router.get(
    "/tasks/{task_id}/events",
    summary="Follow a task's events",
    response_class=StreamingResponse,
    responses={200: {"content": {EVENT_STREAM: {}}}},
)
async def follow_task(
    task_id: str,
    services: Use,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> StreamingResponse:
    """All events of a task as server-sent events, ending with `finished`.

    Between them comes what the model says, as it says it, in events `text` of the form `{"task_id",
    "step", "attempt", "offset", "text"}`. They have no id and are not kept: a reader that is late
    or slow misses some. `offset` counts the characters (Unicode code points) of this `attempt`
    that came before; a new `attempt` begins the step's text anew. The event `model` of the same
    step comes after them and has the whole text. Reasoning is not sent.
    """
    await services.tasks.get(task_id)
    frames = _events(services, task_id, _event_number(last_event_id))
    return StreamingResponse(with_heartbeats(frames), media_type=EVENT_STREAM, headers=HEADERS)


def require_short(query: str, services: Services) -> None:
    """See that a query is not too long.

    Raises:
        RequestTooLarge: It is.
    """
    if len(query) > services.max_query_chars:
        raise RequestTooLarge(
            f"The query has {len(query):,} characters; at most {services.max_query_chars:,} "
            "are taken. Give long material as files."
        )


async def _require_page_end(services: Services, before: str) -> None:
    """See that a page can begin after a task.

    Raises:
        InvalidRequest: There is no such task.
    """
    try:
        await services.tasks.get(before)
    except TaskNotFound as error:
        raise InvalidRequest(
            "before names no task: give the id of the last task of the page before, or leave it "
            "out for the first page.",
            field="before",
        ) from error


def _event_number(last_event_id: str | None) -> int:
    if not last_event_id:
        return 0
    if not EVENT_NUMBER.fullmatch(last_event_id):
        raise InvalidRequest("Last-Event-ID must be the number of an event: send the last one's.")
    return int(last_event_id)


async def _events(services: Services, task_id: str, after: int) -> AsyncIterator[bytes]:
    try:
        async with services.live_text.follow(task_id) as reader:
            events = services.events.follow(task_id, after)
            async for each in narrated(task_id, events, reader, services.running.stopping):
                yield each
    except ServiceStopping as stopping:
        yield frame("stopping", {"code": stopping.code, "detail": stopping.detail})


async def _events_then_result(services: Services, task_id: str) -> AsyncIterator[bytes]:
    async for each in _events(services, task_id, 0):
        yield each
    task = await services.tasks.get(task_id)
    if task.ending is not None:
        body = await shown_task(task, services.events)
        yield frame("result", body.model_dump(mode="json"))


async def _ended(services: Services, task_id: str) -> TaskBody:
    """The task once it has ended, on whatever orchestrator."""
    async for _ in _followed(services, task_id, 0):
        pass
    return await shown_task(await services.tasks.get(task_id), services.events)


async def _followed(services: Services, task_id: str, after: int) -> AsyncIterator[Event]:
    """The task's events, until its end or ours.

    Raises:
        ServiceStopping: This process ends first.
    """
    stopping = asyncio.create_task(services.running.stopping.wait())
    events = services.events.follow(task_id, after)
    coming: asyncio.Future[Event | None] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(events, None))
            # Where we stop first, nobody is left to hear how the waiting ended.
            coming.add_done_callback(lambda each: each.cancelled() or each.exception())
            await asyncio.wait({coming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                raise service_stopping(task_id)
            event = coming.result()
            if event is None:
                return
            yield event
    finally:
        stopping.cancel()
        if coming is not None:
            coming.cancel()
