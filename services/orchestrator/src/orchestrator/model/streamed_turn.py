"""A turn put together from the chunks of a streamed completion.

Endpoints differ: reasoning comes under two names, a call's id and name come once or with every
piece, an index is missing or always 0, the usage comes at the end, with every chunk or not at all.
"""

from dataclasses import dataclass, field

from pydantic import Field, JsonValue, ValidationError

from orchestrator.domain.conversation import Message, ModelTurn, Role, ToolCall
from orchestrator.model.completion import (
    Wire,
    WireUsage,
    first_problem,
    no_completion,
    scripted_play,
    usage_of,
)

END = "[DONE]"
MAX_CALLS = 256


class StreamFailed(Exception):
    """The endpoint reports an error in the middle of its answer.

    Attributes:
        status: The HTTP status it would have been, as far as the endpoint says.
        said: The endpoint's message.
    """

    def __init__(self, status: int | None, said: str) -> None:
        super().__init__(said)
        self.status = status
        self.said = said


class _FunctionDelta(Wire):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(Wire):
    index: int | None = Field(default=None, ge=0)
    id: str | None = None
    function: _FunctionDelta | None = None


class _Delta(Wire):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(Wire):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(Wire):
    choices: list[_Choice] | None = None
    usage: WireUsage | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    error: JsonValue = None
    object: JsonValue = None
    message: JsonValue = None
    code: JsonValue = None


@dataclass(slots=True)
class _Call:
    """A tool call that is growing."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class StreamedTurn:
    """Takes a stream's events one by one and has the turn at the end.

    Args:
        url: The endpoint, for the errors' text.
        max_chars: The most that the turn may have, in text, reasoning and calls together.
    """

    def __init__(self, url: str, max_chars: int) -> None:
        self._url = url
        self._chars_left = max_chars
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._usage: WireUsage | None = None
        self._model = ""
        self._fingerprint: str | None = None
        self._finish_reason: str | None = None
        self._ended = False

    @property
    def complete(self) -> bool:
        """Whether the model has said all; only the usage may be missing."""
        return self._ended or self._finish_reason is not None

    @property
    def ended(self) -> bool:
        """Whether the endpoint has said that nothing follows."""
        return self._ended

    def add(self, data: str) -> str:
        """Take an event's data; returns what it adds to the turn's text.

        Raises:
            StreamFailed: It reports an error.
            ModelResponseInvalid: It is not a chunk, or the turn is too large.
        """
        if data.strip() == END:
            self._ended = True
        if self._ended:
            return ""
        chunk = self._read(data)
        self._usage = chunk.usage or self._usage
        self._model = chunk.model or self._model
        self._fingerprint = chunk.system_fingerprint or self._fingerprint
        return "".join(self._add_choice(each) for each in chunk.choices or () if each.index == 0)

    def turn(self) -> ModelTurn:
        """The whole turn.

        Raises:
            ModelResponseInvalid: A call has no id or no name.
        """
        if not all(call.id and call.name for call in self._calls):
            raise no_completion(self._url, "a tool call has no id or no name")
        calls = tuple(ToolCall(call.id, call.name, "".join(call.arguments)) for call in self._calls)
        message = Message(
            Role.ASSISTANT,
            "".join(self._text),
            tool_calls=calls,
            reasoning="".join(self._reasoning),
        )
        return ModelTurn(
            message=message,
            usage=usage_of(self._usage),
            finish_reason=self._finish_reason or "stop",
            model=self._model,
            scripted=scripted_play(self._fingerprint),
        )

    def _read(self, data: str) -> _Chunk:
        try:
            chunk = _Chunk.model_validate_json(data)
        except ValidationError as error:
            raise no_completion(self._url, first_problem(error)) from error
        if chunk.error:
            raise _reported(chunk.error)
        if chunk.object == "error":
            raise _reported({"message": chunk.message, "code": chunk.code})
        return chunk

    def _add_choice(self, choice: _Choice) -> str:
        self._finish_reason = choice.finish_reason or self._finish_reason
        delta = choice.delta or _Delta()
        text = delta.content or ""
        thought = delta.reasoning_content or delta.reasoning or ""
        self._count(text, thought)
        # Nothing is kept of the empty pieces, of which there may be any number.
        self._text += filter(None, [text])
        self._reasoning += filter(None, [thought])
        for each in delta.tool_calls or ():
            self._add_call(each)
        return text

    def _add_call(self, delta: _CallDelta) -> None:
        function = delta.function or _FunctionDelta()
        name, arguments = function.name or "", function.arguments or ""
        self._count(delta.id or "", name, arguments)
        call = self._call_of(delta, name)
        call.id = call.id or delta.id or ""
        call.name = call.name or name
        call.arguments += filter(None, [arguments])

    def _call_of(self, delta: _CallDelta, name: str) -> _Call:
        """The call that a piece belongs to, a new one if none does."""
        if delta.index is None:
            known = self._calls[-1] if self._calls else None
        else:
            known = self._by_index.get(delta.index)
        # Some give every call the same index, others every piece a new id: a new call has both.
        is_other = known is not None and name and delta.id and delta.id != known.id and known.id
        if known is not None and not is_other:
            return known
        if len(self._calls) >= MAX_CALLS:
            raise no_completion(self._url, f"it has more than {MAX_CALLS} tool calls")
        call = _Call()
        self._calls.append(call)
        if delta.index is not None:
            self._by_index[delta.index] = call
        return call

    def _count(self, *parts: str) -> None:
        self._chars_left -= sum(map(len, parts))
        if self._chars_left < 0:
            raise no_completion(self._url, "its turn is too long")


def _reported(error: JsonValue) -> StreamFailed:
    if not isinstance(error, dict):
        return StreamFailed(None, str(error))
    return StreamFailed(_status(error.get("code")), str(error.get("message") or error))


def _status(code: JsonValue) -> int | None:
    """An HTTP status from an error's code, which may be a number, digits or a word."""
    text = str(code)
    # A status is no success.
    return int(text) if len(text) == len("500") and text.isdecimal() and text >= "400" else None
