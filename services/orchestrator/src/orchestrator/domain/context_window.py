"""Keep a conversation inside the model's context window."""

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.domain.conversation import Message, Role, ToolSpec
from orchestrator.domain.excerpt import excerpt

# English prose and code come to 3.5 to 4.5 bytes a token; the lower figure errs on the safe side.
# Bytes, not characters: other scripts take fewer characters a token. A message's own framing
# costs a few tokens more.
BYTES_PER_TOKEN = 3.5
TOKENS_PER_MESSAGE = 8
RECENT_KEPT = 8
FILL = 0.8
"""The share of the window a request may fill; the rest is for the answer."""

DROPPED = "[The result of step {step} was dropped to save room. Call the tool again if needed.]"
OMITTED = "[Earlier turns were dropped to save room. Tools called in them, in order: {calls}.]"
CUT = "ask for a smaller part of it if needed"
MAX_CALLS_NAMED = 20
MAX_NAME_CHARS = 40
SHORTEST_RESULT = 200
"""Characters of a result that are never cut away."""


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Roughly how many tokens these messages take."""
    return sum(_size(message) for message in messages)


def estimate_schemas(tools: Sequence[ToolSpec]) -> int:
    """Roughly how many tokens the descriptions of these tools take."""
    texts = (tool.name + tool.description + tool.parameters for tool in tools)
    return sum(_tokens(text) for text in texts)


def compact(messages: Sequence[Message], window: int, reserved: int = 0) -> list[Message]:
    """The messages, shortened where they would not fit the window.

    First the results of older tool calls are dropped, oldest first; then whole older turns give
    way to one line that names the calls made in them, and only what the user said between them
    stays; last, the results of the latest turn are cut. What users said and the latest turn always
    stay, so a query that is larger than the window does not fit it afterwards either. Every call
    keeps its result and every result its call, as the chat protocol demands.

    Args:
        messages: The whole conversation.
        window: The model's context window in tokens.
        reserved: Tokens taken by what is not a message, such as the tools' schemas.
    """
    room = int(window * FILL) - reserved
    shortened = list(messages)
    for step in (_drop_results, _drop_turns, _cut_results):
        if estimate_tokens(shortened) <= room:
            break
        shortened = step(shortened, room)
    return shortened


def _tokens(text: str) -> int:
    return int(len(text.encode(errors="replace")) / BYTES_PER_TOKEN)


def _size(message: Message) -> int:
    calls = sum(_tokens(call.name + call.arguments) for call in message.tool_calls)
    return _tokens(message.text) + _tokens(message.reasoning) + calls + TOKENS_PER_MESSAGE


def _drop_results(messages: list[Message], room: int) -> list[Message]:
    excess = estimate_tokens(messages) - room
    shortened = list(messages)
    # What the latest turn asked for was not read yet, however much it is.
    older = min(len(messages) - RECENT_KEPT, max(_turns(messages), default=0))
    for index, message in enumerate(messages[: max(0, older)]):
        if excess <= 0:
            break
        if message.role is not Role.TOOL:
            continue
        dropped = replace(message, text=DROPPED.format(step=message.step))
        saved = _size(message) - _size(dropped)
        if saved > 0:
            excess -= saved
            shortened[index] = dropped
    return shortened


def _drop_turns(messages: list[Message], room: int) -> list[Message]:
    """Drop as few of the oldest turns as will do, and never the latest."""
    turns = _turns(messages)
    if not turns:
        return messages
    opening = messages[: turns[0]]
    shortened = messages
    for start in turns[1:]:
        dropped = messages[turns[0] : start]
        # A task that was continued, or spoken to, has its query of today among older turns.
        said = [message for message in dropped if message.role is Role.USER]
        shortened = [*opening, _omitted(dropped), *said, *messages[start:]]
        if estimate_tokens(shortened) <= room:
            break
    # The note may be longer than the turns it stands for.
    return min(messages, shortened, key=estimate_tokens)


def _turns(messages: Sequence[Message]) -> list[int]:
    """Where turns begin: each with a message of the assistant."""
    return [index for index, message in enumerate(messages) if message.role is Role.ASSISTANT]


def _omitted(messages: Sequence[Message]) -> Message:
    calls = [call.name[:MAX_NAME_CHARS] for message in messages for call in message.tool_calls]
    return Message(Role.USER, OMITTED.format(calls=", ".join(calls[-MAX_CALLS_NAMED:]) or "none"))


def _cut_results(messages: list[Message], room: int) -> list[Message]:
    """Cut the longest results, all to one length, until everything fits or they are short."""
    limit = max((len(message.text) for message in messages if message.role is Role.TOOL), default=0)
    shortened = messages
    while limit > SHORTEST_RESULT and estimate_tokens(shortened) > room:
        limit = max(SHORTEST_RESULT, limit * 3 // 4)
        shortened = [_cut(message, limit) for message in messages]
    return shortened


def _cut(message: Message, limit: int) -> Message:
    if message.role is not Role.TOOL:
        return message
    cut = replace(message, text=excerpt(message.text, limit, CUT))
    return cut if _size(cut) < _size(message) else message
