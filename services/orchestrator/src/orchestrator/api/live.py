"""A task's events as frames, with what its model says between them."""

import asyncio
from collections.abc import AsyncIterator

from orchestrator.api.sse import event_frame, text_frame
from orchestrator.domain.events import Event, EventKind
from orchestrator.ports import LiveTextReader


async def narrated(events: AsyncIterator[Event], reader: LiveTextReader) -> AsyncIterator[bytes]:
    """The frames of all events, and of text until the event of its own step is there.

    Text that comes later than the event that holds all of it is dropped.
    """
    recorded_step = 0
    coming = asyncio.ensure_future(anext(events, None))
    heard = asyncio.ensure_future(reader.wait())
    try:
        while True:
            await asyncio.wait({coming, heard}, return_when=asyncio.FIRST_COMPLETED)
            for piece in reader.take():
                if piece.step > recorded_step:
                    yield text_frame(piece)
            if heard.done():
                heard = asyncio.ensure_future(reader.wait())
            if not coming.done():
                continue
            event = coming.result()
            if event is None:
                return
            if event.kind is EventKind.MODEL:
                recorded_step = event.step
            yield event_frame(event)
            coming = asyncio.ensure_future(anext(events, None))
    finally:
        coming.cancel()
        heard.cancel()
