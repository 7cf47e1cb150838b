"""Read the body of an endpoint's answer: a stream of chunks, or one whole completion."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import httpx2

from orchestrator.domain.conversation import ModelTurn
from orchestrator.domain.live_text import TextDelta
from orchestrator.model.completion import no_completion, read_turn
from orchestrator.model.event_stream import EventStream, EventTooLarge
from orchestrator.model.streamed_turn import StreamedTurn
from orchestrator.ports import OnText

MAX_ANSWER_BYTES = 16 * 1024 * 1024
TAIL_SECONDS = 2.0
"""How long a finished turn waits for its usage."""
DRAIN_SECONDS = 0.25
"""How long the stream's very end is waited for, so that the connection can be used again."""

EVENT_STREAM = "text/event-stream"
LOST = (httpx2.HTTPError, aiohttp.ClientError, OSError)
# The first letters of a stream's fields and its comments; no JSON text begins with one.
_STREAM_BEGINS = (b"data", b"event", b"id", b"retry", b":", b"\xef\xbb\xbfdata")


class BrokeOff(Exception):
    """An answer began and did not come to its end."""


class Speech:
    """Hands on the text of one attempt in numbered pieces."""

    def __init__(self, on_text: OnText | None) -> None:
        self._on_text = on_text
        self._attempt = secrets.token_hex(4)
        self._offset = 0

    def say(self, text: str) -> None:
        """Hand on the next piece, if it has any text."""
        if text and self._on_text is not None:
            self._on_text(TextDelta(self._attempt, self._offset, text))
        self._offset += len(text)


class Answer:
    """The body of an endpoint's answer.

    Args:
        chunks: The body as it comes.
        media_type: What the endpoint calls it. Some call a stream JSON and JSON a stream, so its
            first bytes count for more.
        url: The endpoint, for the errors' text.
        idle_seconds: How long an answer that has begun may be silent.
    """

    def __init__(
        self, chunks: AsyncIterator[bytes], *, media_type: str, url: str, idle_seconds: float
    ) -> None:
        self._chunks = chunks
        self._media_type = media_type
        self._url = url
        self._idle_seconds = idle_seconds

    async def read(self, speech: Speech) -> ModelTurn:
        """The turn in it; its text goes to `speech` as it comes.

        Raises:
            BrokeOff: The connection was lost or fell silent before the end.
            StreamFailed: The endpoint reports an error inside a stream.
            ModelResponseInvalid: It is neither a stream of chunks nor a completion.
        """
        try:
            beginning = await self._beginning()
            if self._is_stream(beginning):
                return await self._read_stream(beginning, speech)
            turn = read_turn(await self._whole(beginning), self._url)
        except LOST as error:
            raise BrokeOff("The connection was lost.") from error
        except EventTooLarge as error:
            raise no_completion(self._url, str(error)) from error
        speech.say(turn.message.text)
        return turn

    async def _beginning(self) -> bytes:
        """The first bytes, enough to tell a stream; it may take the model long to say them."""
        beginning = b""
        longest = max(map(len, _STREAM_BEGINS))
        async for chunk in self._chunks:
            beginning = (beginning + chunk).lstrip()
            # Spaces before it are no part of it, however many there are.
            if len(beginning) >= longest:
                break
            if beginning and not any(each.startswith(beginning) for each in _STREAM_BEGINS):
                break
        return beginning

    def _is_stream(self, beginning: bytes) -> bool:
        if not beginning:
            return self._media_type == EVENT_STREAM
        return beginning.startswith(_STREAM_BEGINS)

    async def _whole(self, beginning: bytes) -> bytes:
        body = bytearray(beginning)
        while chunk := await self._next():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise no_completion(self._url, f"it has more than {MAX_ANSWER_BYTES:,} bytes")
        return bytes(body)

    async def _read_stream(self, beginning: bytes, speech: Speech) -> ModelTurn:
        events = EventStream(MAX_ANSWER_BYTES)
        turn = StreamedTurn(self._url, MAX_ANSWER_BYTES)
        chunk = beginning
        while chunk:
            for data in events.feed(chunk):
                speech.say(turn.add(data))
            if turn.complete:
                break
            chunk = await self._next()
        if not turn.complete:
            raise BrokeOff("The stream ended before the turn did.")
        # All has been said: losing the rest costs only the usage.
        with suppress(TimeoutError, *LOST):
            await self._read_tail(events, turn, speech)
        return turn.turn()

    async def _read_tail(self, events: EventStream, turn: StreamedTurn, speech: Speech) -> None:
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(TAIL_SECONDS) as limit:
            while not turn.ended and (chunk := await self._next()):
                for data in events.feed(chunk):
                    speech.say(turn.add(data))
            limit.reschedule(now() + DRAIN_SECONDS)
            async for _ in self._chunks:
                continue

    async def _next(self) -> bytes:
        """The next bytes, none at the end."""
        try:
            async with asyncio.timeout(self._idle_seconds):
                return await anext(self._chunks, b"")
        except TimeoutError as error:
            raise BrokeOff(f"It fell silent for {self._idle_seconds:.3g} s.") from error
