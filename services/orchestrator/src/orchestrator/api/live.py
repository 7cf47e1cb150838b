"""A task's events as frames, with what its model says between them."""

import asyncio
from collections.abc import AsyncIterator

from orchestrator.api.sse import event_frame, text_frame
from orchestrator.domain.events import Event, EventKind
from orchestrator.errors import ServiceStopping
from orchestrator.ports import LiveTextReader


async def narrated(
    task_id: str, events: AsyncIterator[Event], reader: LiveTextReader, stopping: asyncio.Event
) -> AsyncIterator[bytes]:
    """The frames of all events, and of text until the event of its own step is there.

    Text that comes later than the event that holds all of it is dropped. All is
    waited for in one place, since many may read the same task.

    Raises:
        ServiceStopping: This process ends before the task does.
    """
    recorded_step = 0
    coming = asyncio.ensure_future(anext(events, None))
    heard = asyncio.ensure_future(reader.wait())
    ended = asyncio.ensure_future(stopping.wait())
    try:
        while True:
            await asyncio.wait({coming, heard, ended}, return_when=asyncio.FIRST_COMPLETED)
            for piece in reader.take():
                if piece.step > recorded_step:
                    yield text_frame(piece)
            if heard.done():
                heard = asyncio.ensure_future(reader.wait())
            if coming.done():
                event = coming.result()
                if event is None:
                    return
                if event.kind is EventKind.MODEL:
                    recorded_step = event.step
                yield event_frame(event)
                coming = asyncio.ensure_future(anext(events, None))
            elif ended.done():
                # Nobody is left to hear how the waiting ended.
                coming.add_done_callback(lambda each: each.cancelled() or each.exception())
                raise service_stopping(task_id)
    finally:
        for each in (coming, heard, ended):
            each.cancel()


def service_stopping(task_id: str) -> ServiceStopping:
    """The error for whoever waits for a task while the service ends."""
    return ServiceStopping(
        "The service is stopping. The task is kept and goes on when the service runs again: ask "
        f"for /tasks/{task_id} then.",
        task_id=task_id,
    )
