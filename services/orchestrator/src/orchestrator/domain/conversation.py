"""The messages between a task and its model."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asks for; `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    `tool_calls` and `reasoning` belong to the assistant; `tool_call_id` and `step` (the number
    of the step whose result this is) to a tool.
    """

    role: Role
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    tool_call_id: str = ""
    step: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ModelTurn:
    """What the model answered to one request.

    `scripted` names the play when the scripted model spoke, and is empty for a real one.
    """

    message: Message
    usage: Usage
    finish_reason: str = "stop"
    model: str = ""
    scripted: str = ""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model is told of it; `parameters` is its JSON schema as text.

    `read_only` is what its server says of it.
    """

    name: str
    description: str
    parameters: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered; `is_error` marks a failure that the model should read."""

    text: str
    is_error: bool = False
