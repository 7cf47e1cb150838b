"""Read a chat completion strictly: what is not one is an error, never a guess."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.domain.conversation import Message, ModelTurn, Role, ToolCall, Usage
from orchestrator.errors import ModelResponseInvalid

SCRIPTED_MARK = "scripted:"
"""How the scripted model marks its answers, in `system_fingerprint`."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Function(_Wire):
    name: str
    arguments: str = ""


class _Call(_Wire):
    id: str
    function: _Function


class _Message(_Wire):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(_Wire):
    message: _Message
    finish_reason: str | None = None


class _Usage(_Wire):
    # Less than nothing would widen a task's budget.
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)


class _Completion(_Wire):
    choices: list[_Choice]
    usage: _Usage | None = None
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
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise _invalid(url, f"{where}: {first['msg']}") from error
    if not parsed.choices:
        raise _invalid(url, "it has no choices")
    return _turn(parsed, parsed.choices[0])


def _turn(parsed: _Completion, choice: _Choice) -> ModelTurn:
    said = choice.message
    usage = parsed.usage or _Usage()
    fingerprint = parsed.system_fingerprint or ""
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in said.tool_calls or ()
    )
    return ModelTurn(
        message=Message(
            Role.ASSISTANT,
            said.content or "",
            tool_calls=calls,
            reasoning=said.reasoning_content or said.reasoning or "",
        ),
        usage=Usage(usage.prompt_tokens, usage.completion_tokens),
        finish_reason=choice.finish_reason or "stop",
        model=parsed.model or "",
        scripted=fingerprint.removeprefix(SCRIPTED_MARK)
        if fingerprint.startswith(SCRIPTED_MARK)
        else "",
    )


def _invalid(url: str, why: str) -> ModelResponseInvalid:
    return ModelResponseInvalid(
        f"What {url} answered is not a chat completion: {why[:300]}. Check that GPT_OSS_URL is an "
        "OpenAI-compatible endpoint.",
        url=url,
    )
