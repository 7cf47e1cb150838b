"""The server: an OpenAI-compatible ASGI application over a list of plays."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gpt_oss.scripted import wire
from gpt_oss.scripted.conversation import ChatRequest
from gpt_oss.scripted.director import HttpError, RawBody, Reply, ScriptMismatch, Speech, direct
from gpt_oss.scripted.play import Play

_LOG = logging.getLogger(__name__)
_EVENT_STREAM = "text/event-stream"


def create_app(plays: Sequence[Play]) -> Starlette:
    """Return the application that plays these plays, tried in this order.

    It keeps no state, so any number of instances may serve the same conversation. A request that
    no play fits is refused; put a play with `when: {always: true}` last to answer all others.
    """
    endpoint = _Endpoint(tuple(plays), created=int(time.time()))
    return Starlette(
        routes=[
            Route("/v1/chat/completions", endpoint.complete, methods=["POST"]),
            Route("/v1/models", endpoint.models),
            Route("/health", endpoint.health),
        ]
    )


@dataclass(frozen=True, slots=True)
class _Endpoint:
    plays: tuple[Play, ...]
    created: int

    async def complete(self, request: Request) -> Response:
        """Answer `POST /v1/chat/completions`."""
        try:
            chat = ChatRequest.model_validate_json(await request.body())
        except ValidationError as error:
            return _refusal(str(error), "invalid_request")
        try:
            reply = direct(self.plays, chat)
        except ScriptMismatch as mismatch:
            # The diff may quote files, so only the first line goes to the log.
            _LOG.warning("script mismatch: %s", str(mismatch).partition("\n")[0])
            return _refusal(str(mismatch), "script_mismatch")
        await _pause(request, reply.delay_seconds)
        return _response(reply, chat)

    async def models(self, _request: Request) -> Response:
        """Answer `GET /v1/models`."""
        return JSONResponse(wire.models(self.created))

    async def health(self, _request: Request) -> Response:
        """Answer `GET /health` with the names of the plays."""
        names = [play.name for play in self.plays]
        return JSONResponse({"status": "ok", "model": wire.MODEL, "plays": names})


class _CutResponse(Response):
    """Sends half of its body, then leaves the response unfinished: the server hangs up."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})


def _refusal(message: str, code: str) -> Response:
    return JSONResponse(wire.error(message, code), status_code=400)


async def _pause(request: Request, seconds: float) -> None:
    """Wait, but not longer than the client does."""
    if not seconds:
        return
    try:
        async with asyncio.timeout(seconds):
            while (await request.receive())["type"] != "http.disconnect":
                continue
    except TimeoutError:
        return


def _response(reply: Reply, chat: ChatRequest) -> Response:
    match reply.outcome:
        case HttpError() as failure:
            return _failure(failure)
        case RawBody(text):
            media_type = _EVENT_STREAM if chat.stream else "application/json"
            return Response(text, media_type=media_type)
        case Speech() as speech:
            return _speech(reply, speech, chat)


def _failure(failure: HttpError) -> Response:
    headers = dict(failure.headers)
    if isinstance(failure.body, str):
        return Response(failure.body, failure.status, headers, media_type="text/plain")
    body = failure.body
    if body is None:
        body = wire.error("The play asks for this error.", "scripted_error", "server_error")
    return JSONResponse(body, failure.status, headers)


def _speech(reply: Reply, speech: Speech, chat: ChatRequest) -> Response:
    stamp = wire.Stamp(id=f"chatcmpl-{uuid.uuid4().hex}", created=int(time.time()))
    if not chat.stream:
        kind = _CutResponse if speech.cut else Response
        content = _json(wire.completion(reply, speech, stamp))
        return kind(content, media_type="application/json")
    events = _events(wire.chunks(reply, speech, stamp, include_usage=chat.include_usage))
    if speech.cut:
        return _CutResponse("".join(events), media_type=_EVENT_STREAM)
    pieces = _one_by_one(events, speech.piece_seconds)
    return StreamingResponse(pieces, media_type=_EVENT_STREAM)


async def _one_by_one(events: Iterator[str], seconds: float) -> AsyncIterator[str]:
    """The events as a model would say them: each on its own, some time after the one before."""
    for each in events:
        await asyncio.sleep(seconds)
        yield each


def _events(objects: Iterator[wire.JsonObject]) -> Iterator[str]:
    for each in objects:
        yield f"data: {_json(each)}\n\n"
    yield "data: [DONE]\n\n"


def _json(content: wire.JsonObject) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
