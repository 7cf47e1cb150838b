"""Server-sent events (WHATWG HTML, section 9.2)."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping

from pydantic import JsonValue

from orchestrator.domain.events import Event
from orchestrator.domain.live_text import LiveText

HEARTBEAT_SECONDS = 15.0
HEARTBEAT = b": still here\n\n"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event_frame(event: Event) -> bytes:
    """A task's event as a frame; its number is the id that `Last-Event-ID` resumes from."""
    data: dict[str, JsonValue] = {
        "task_id": event.task_id,
        "number": event.number,
        "step": event.step,
        "at": event.at.isoformat(),
    }
    return frame(event.kind.value, {**data, **event.data}, event.number)


def text_frame(piece: LiveText) -> bytes:
    """A piece of what the model is saying; it has no id, for nothing can resume from it."""
    delta = piece.delta
    data: dict[str, JsonValue] = {
        "task_id": piece.task_id,
        "step": piece.step,
        "attempt": delta.attempt,
        "offset": delta.offset,
        "text": delta.text,
    }
    return frame("text", data)


def frame(name: str, data: Mapping[str, JsonValue], number: int | None = None) -> bytes:
    """One frame of the stream."""
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def with_heartbeats(frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The frames, with a comment in every pause, so that proxies keep the connection."""
    pending = asyncio.ensure_future(anext(frames, None))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=HEARTBEAT_SECONDS)
            if not done:
                yield HEARTBEAT
                continue
            next_frame = pending.result()
            if next_frame is None:
                return
            yield next_frame
            pending = asyncio.ensure_future(anext(frames, None))
    finally:
        pending.cancel()
