"""Tasks: give one, read one, follow one."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from orchestrator.api.schemas import OrchestrateBody, TaskBody, task_body
from orchestrator.api.services import Services, Use
from orchestrator.api.sse import HEADERS, event_frame, frame, with_heartbeats
from orchestrator.domain.task import Task
from orchestrator.errors import InvalidRequest, RequestTooLarge

router = APIRouter(tags=["tasks"])

EVENT_STREAM = "text/event-stream"
EVENT_NUMBER = re.compile("[0-9]{1,9}")


@router.post(
    "/orchestrate",
    response_model=TaskBody,
    summary="Run a task and return its answer and patch",
    responses={200: {"content": {EVENT_STREAM: {}}}},
)
async def orchestrate(
    body: OrchestrateBody, request: Request, services: Use
) -> Response | TaskBody:
    """Run a task in its repository's container.

    Waits for the end and returns the result. With `Accept: text/event-stream` the task's events
    are streamed as they happen, the result comes last as the event `result`.
    """
    if len(body.query) > services.max_query_chars:
        raise RequestTooLarge(
            f"The query has {len(body.query):,} characters; at most {services.max_query_chars:,} "
            "are taken. Give long material as files."
        )
    task = await services.submit(body.to_request())
    running = services.running.start(task)
    if EVENT_STREAM in request.headers.get("accept", ""):
        frames = _events_then_result(services, task.id, running)
        return StreamingResponse(with_heartbeats(frames), media_type=EVENT_STREAM, headers=HEADERS)
    return task_body(await asyncio.shield(running))


@router.get("/tasks/{task_id}", response_model=TaskBody, summary="A task and its result")
async def read_task(task_id: str, services: Use) -> TaskBody:
    """The task as it stands now."""
    return task_body(await services.tasks.get(task_id))


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
    """All events of a task as server-sent events, ending with `finished`."""
    await services.tasks.get(task_id)
    frames = _events(services, task_id, _event_number(last_event_id))
    return StreamingResponse(with_heartbeats(frames), media_type=EVENT_STREAM, headers=HEADERS)


def _event_number(last_event_id: str | None) -> int:
    if not last_event_id:
        return 0
    if not EVENT_NUMBER.fullmatch(last_event_id):
        raise InvalidRequest("Last-Event-ID must be the number of an event: send the last one's.")
    return int(last_event_id)


async def _events(services: Services, task_id: str, after: int) -> AsyncIterator[bytes]:
    async for event in services.events.follow(task_id, after):
        yield event_frame(event)


async def _events_then_result(
    services: Services, task_id: str, running: "asyncio.Task[Task]"
) -> AsyncIterator[bytes]:
    async for each in _events(services, task_id, 0):
        yield each
    task = await asyncio.shield(running)
    yield frame("result", task_body(task).model_dump(mode="json"))
