"""Live text as payloads of notifications, which Postgres limits to 8,000 bytes."""

import json
from collections.abc import Iterator
from dataclasses import replace

from orchestrator.domain.live_text import LiveText, TextDelta

MAX_PAYLOAD_BYTES = 7_999


def payloads(piece: LiveText) -> Iterator[str]:
    """The piece as one payload, or several that follow each other.

    They are JSON in ASCII, so that their size in bytes is known and any text is valid in them.
    """
    whole = json.dumps(
        [piece.task_id, piece.step, piece.delta.attempt, piece.delta.offset, piece.delta.text],
        separators=(",", ":"),
    )
    text = piece.delta.text
    if len(whole) <= MAX_PAYLOAD_BYTES or len(text) <= 1:
        yield whole
        return
    middle = len(text) // 2
    yield from payloads(_part(piece, 0, text[:middle]))
    yield from payloads(_part(piece, middle, text[middle:]))


def read_payload(payload: str) -> LiveText:
    """The piece in a payload.

    Raises:
        ValueError: It is none of ours.
    """
    match json.loads(payload):
        case [str(task_id), int(step), str(attempt), int(offset), str(text)]:
            return LiveText(task_id, step, TextDelta(attempt, offset, text))
    raise ValueError("not a piece of live text")


def _part(piece: LiveText, start: int, text: str) -> LiveText:
    delta = replace(piece.delta, offset=piece.delta.offset + start, text=text)
    return replace(piece, delta=delta)
