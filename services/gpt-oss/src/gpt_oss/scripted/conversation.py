"""The conversation: a request as the protocol sends it, and what it says about the play so far.

The server keeps nothing between requests. Which reply comes next is read from the messages: the
assistant messages since the user message that started the play are counted, and the numbers in
our own tool-call ids are trusted where a client has dropped older messages.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, JsonValue

CHARACTERS_PER_TOKEN = 4
"""What an estimate takes for a token, as usual for English text."""


class _Wire(BaseModel):
    # A client may send any of the protocol's many other keys; they mean nothing to a script.
    model_config = ConfigDict(extra="ignore", frozen=True)


class TextPart(_Wire):
    """A part of a message's content; parts that are not text have an empty one."""

    text: str = ""


class CalledFunction(_Wire):
    """The function of a tool call and its arguments as text."""

    name: str
    arguments: str = ""


class CallMade(_Wire):
    """A tool call in an assistant message."""

    id: str = ""
    function: CalledFunction


class Message(_Wire):
    """A message of any role."""

    role: str
    content: str | list[TextPart] | None = None
    tool_calls: list[CallMade] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The content as text, parts joined."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    @property
    def is_answer(self) -> bool:
        """Whether it is an assistant message that ends a query: text and no tool calls."""
        return self.role == "assistant" and bool(self.text) and not self.tool_calls


class OfferedFunction(_Wire):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: JsonValue = None


class OfferedTool(_Wire):
    """A tool that the model may call."""

    function: OfferedFunction


class StreamOptions(_Wire):
    """What a stream contains besides the message."""

    include_usage: bool = False


class ChatRequest(_Wire):
    """The body of `POST /v1/chat/completions`, as far as scripts care."""

    model: str = ""
    messages: list[Message] = Field(min_length=1)
    tools: list[OfferedTool] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that has the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def tool_names(self) -> list[str]:
        """Names of the offered tools."""
        return [tool.function.name for tool in self.tools or ()]

    def estimated_tokens(self) -> int:
        """Estimate the size of the prompt, in tokens."""
        characters = 0
        for message in self.messages:
            characters += len(message.text)
            for call in message.tool_calls or ():
                characters += len(call.function.name) + len(call.function.arguments)
        for tool in self.tools or ():
            function = tool.function
            characters += len(function.name) + len(function.description or "")
            characters += len(json.dumps(function.parameters))
        return estimated_tokens(characters)


@dataclass(frozen=True, slots=True)
class Given:
    """A reply already given: its number, and how many tool results there were before it."""

    position: int
    results_before: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What has happened since the user message that started the play.

    Attributes:
        query: Text of that message.
        position: Number of the reply that is asked for now, from 0.
        given: The replies before it that are still in the conversation.
        results: Texts of the tool results, oldest first.
    """

    query: str
    position: int
    given: tuple[Given, ...]
    results: tuple[str, ...]


def estimated_tokens(characters: int) -> int:
    """Estimate how many tokens so many characters are, rounded up."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def call_id(position: int, number: int) -> str:
    """Return the id of a tool call: the reply's position and the call's number in it."""
    return f"call_{position}_{number}"


def progress(messages: Sequence[Message], start: int) -> Progress:
    """Read the state of a play from the messages.

    Args:
        messages: All messages of the request.
        start: Index of the user message that started the play.
    """
    position = 0
    given: list[Given] = []
    results: list[str] = []
    for message in messages[start + 1 :]:
        if message.role == "assistant":
            position = _numbered(message, default=position)
            given.append(Given(position, len(results)))
            position += 1
        elif message.role == "tool":
            results.append(message.text)
    return Progress(messages[start].text, position, tuple(given), tuple(results))


def tool_name(messages: Sequence[Message], result: Message) -> str:
    """Return the name of the tool that gave a result, empty if its call is not there."""
    for message in reversed(messages):
        for call in message.tool_calls or ():
            if call.id == result.tool_call_id:
                return call.function.name
    return ""


def _numbered(message: Message, default: int) -> int:
    ids = (re.fullmatch(r"call_(\d{1,9})_\d+", call.id) for call in message.tool_calls or ())
    return next((int(found[1]) for found in ids if found), default)
