"""Read a chat completion strictly: what is not one is an error, never a guess."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.domain.conversation import Message, ModelTurn, Role, ToolCall, Usage
from orchestrator.errors import ModelResponseInvalid

SCRIPTED_MARK = "scripted:"
"""How the scripted model marks its answers, in `system_fingerprint`."""


class Wire(BaseModel):
    """A part of what an endpoint sends; it may have more keys than we know."""

    model_config = ConfigDict(extra="ignore")


class _Function(Wire):
    name: str
    arguments: str = ""


class _Call(Wire):
    id: str
    function: _Function


class _Message(Wire):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Wire):
    message: _Message
    finish_reason: str | None = None


class WireUsage(Wire):
    """The tokens of one request."""

    # Less than nothing would widen a task's budget.
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)


class _Completion(Wire):
    choices: list[_Choice]
    usage: WireUsage | None = None
    model: str | None = None
    system_fingerprint: str | None = None


def read_turn(body: bytes, url: str) -> ModelTurn:
    """The model's turn in a completion.

    Args:
        body: What the endpoint answered.
        url: The endpoint, for the error's text.

    Raises:
        ModelResponseInvalid: It is not JSON, has no choice, or its parts have the wrong types.
    """
    try:
        parsed = _Completion.model_validate_json(body)
    except ValidationError as error:
        raise no_completion(url, first_problem(error)) from error
    if not parsed.choices:
        raise no_completion(url, "it has no choices")
    return _turn(parsed, parsed.choices[0])


def _turn(parsed: _Completion, choice: _Choice) -> ModelTurn:
    said = choice.message
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in said.tool_calls or ()
    )
    message = Message(
        Role.ASSISTANT,
        said.content or "",
        tool_calls=calls,
        reasoning=said.reasoning_content or said.reasoning or "",
    )
    return ModelTurn(
        message=message,
        usage=usage_of(parsed.usage),
        finish_reason=choice.finish_reason or "stop",
        model=parsed.model or "",
        scripted=scripted_play(parsed.system_fingerprint),
    )


def usage_of(usage: WireUsage | None) -> Usage:
    """The tokens of one request; none if the endpoint does not count them."""
    return Usage() if usage is None else Usage(usage.prompt_tokens, usage.completion_tokens)


def scripted_play(fingerprint: str | None) -> str:
    """The play that the scripted model has marked its answer with, empty for a real model."""
    if fingerprint is None or not fingerprint.startswith(SCRIPTED_MARK):
        return ""
    return fingerprint.removeprefix(SCRIPTED_MARK)


def first_problem(error: ValidationError) -> str:
    """Where and why something is not what it should be, without its content."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    return f"{where}: {first['msg']}"


def no_completion(url: str, why: str) -> ModelResponseInvalid:
    """The error for an answer that cannot be read."""
    return ModelResponseInvalid(
        f"What {url} answered is not a chat completion: {why[:300]}. Check that GPT_OSS_URL is an "
        "OpenAI-compatible endpoint.",
        url=url,
    )
