"""The wire: replies as JSON objects of the OpenAI chat completions protocol."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from gpt_oss.scripted.director import Reply, Speech, ToolCall

MODEL = "berth-scripted"
"""The model name in every response; clients know by it that no real model spoke."""

_PIECES = 20
_SHORTEST_PIECE = 16

JsonObject = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes one response different from another: its id and the time, in epoch seconds."""

    id: str
    created: int


def completion(reply: Reply, speech: Speech, stamp: Stamp) -> JsonObject:
    """Return the response object of a request without streaming."""
    message: JsonObject = {"role": "assistant", "content": speech.text}
    if speech.reasoning is not None:
        message["reasoning"] = speech.reasoning
    if speech.calls:
        message["tool_calls"] = [_call(call) for call in speech.calls]
    choice: JsonObject = {
        "index": 0,
        "message": message,
        "finish_reason": speech.finish_reason,
        "logprobs": None,
    }
    head = _head(reply, stamp, "chat.completion")
    return {**head, "choices": [choice], "usage": _usage(speech)}


def chunks(
    reply: Reply, speech: Speech, stamp: Stamp, *, include_usage: bool
) -> Iterator[JsonObject]:
    """Yield the objects of a streamed response, the usage last if it is asked for."""
    head = _head(reply, stamp, "chat.completion.chunk")
    if include_usage:
        head["usage"] = None
    for delta in _deltas(speech):
        yield {**head, "choices": [_choice(delta, None)]}
    yield {**head, "choices": [_choice({}, speech.finish_reason)]}
    if include_usage:
        yield {**head, "choices": [], "usage": _usage(speech)}


def error(message: str, code: str | None, kind: str = "invalid_request_error") -> JsonObject:
    """Return an error object."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def models(created: int) -> JsonObject:
    """Return the answer of `GET /v1/models`."""
    model: JsonObject = {
        "id": MODEL,
        "object": "model",
        "created": created,
        "owned_by": "berth",
    }
    return {"object": "list", "data": [model]}


def pieces(text: str) -> Iterator[str]:
    """Cut text into at most 20 pieces, as a stream sends it."""
    size = max(_SHORTEST_PIECE, -(-len(text) // _PIECES))
    for start in range(0, len(text), size):
        yield text[start : start + size]


def _head(reply: Reply, stamp: Stamp, kind: str) -> JsonObject:
    return {
        "id": stamp.id,
        "object": kind,
        "created": stamp.created,
        "model": MODEL,
        "system_fingerprint": f"scripted:{reply.play}",
    }


def _deltas(speech: Speech) -> Iterator[JsonObject]:
    yield {"role": "assistant", "content": None if speech.text is None else ""}
    for piece in pieces(speech.reasoning or ""):
        yield {"reasoning": piece}
    for piece in pieces(speech.text or ""):
        yield {"content": piece}
    for index, call in enumerate(speech.calls):
        opening = _call(ToolCall(call.id, call.name, ""))
        yield {"tool_calls": [{"index": index, **opening}]}
        for piece in pieces(call.arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _choice(delta: JsonObject, finish_reason: str | None) -> JsonObject:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}


def _call(call: ToolCall) -> JsonObject:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _usage(speech: Speech) -> JsonObject:
    return {
        "prompt_tokens": speech.prompt_tokens,
        "completion_tokens": speech.completion_tokens,
        "total_tokens": speech.prompt_tokens + speech.completion_tokens,
    }
