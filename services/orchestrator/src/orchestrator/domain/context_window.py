"""Keep a conversation inside the model's context window."""

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.domain.conversation import Message, Role

# English prose and code come to 3.5 to 4.5 characters a token; the lower figure errs on the safe
# side. A message's own framing costs a few tokens more.
CHARS_PER_TOKEN = 3.5
TOKENS_PER_MESSAGE = 8
RECENT_KEPT = 8
FILL = 0.8
"""The share of the window a request may fill; the rest is for the answer."""

DROPPED = "[The result of step {step} was dropped to save room. Call the tool again if needed.]"
OMITTED = "[Earlier turns were dropped to save room. Tools called in them, in order: {calls}.]"
MAX_CALLS_NAMED = 60


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Roughly how many tokens these messages take."""
    return sum(_size(message) for message in messages)


def compact(messages: Sequence[Message], window: int, reserved: int = 0) -> list[Message]:
    """The messages, shortened where they would not fit the window.

    First the results of older tool calls are dropped, oldest first; if that is not enough, whole
    older turns give way to one line that names the calls made in them. The opening (system and
    first user message) and the latest turns always stay. Every call keeps its result and every
    result its call, as the chat protocol demands.

    Args:
        messages: The whole conversation.
        window: The model's context window in tokens.
        reserved: Tokens taken by what is not a message, such as the tools' schemas.
    """
    room = int(window * FILL) - reserved
    shortened = list(messages)
    if estimate_tokens(shortened) <= room:
        return shortened
    _drop_results(shortened, room)
    if estimate_tokens(shortened) <= room:
        return shortened
    return _drop_turns(shortened)


def _size(message: Message) -> int:
    chars = len(message.text) + len(message.reasoning)
    chars += sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return int(chars / CHARS_PER_TOKEN) + TOKENS_PER_MESSAGE


def _drop_results(messages: list[Message], room: int) -> None:
    excess = estimate_tokens(messages) - room
    for index, message in enumerate(messages[:-RECENT_KEPT]):
        if excess <= 0:
            return
        if message.role is not Role.TOOL:
            continue
        dropped = replace(message, text=DROPPED.format(step=message.step))
        excess -= max(0, _size(message) - _size(dropped))
        messages[index] = dropped


def _drop_turns(messages: Sequence[Message]) -> list[Message]:
    opening_end = _opening_end(messages)
    start = max(opening_end, len(messages) - RECENT_KEPT)
    # A tool result must follow its call: begin the kept part at a turn of the assistant.
    while start < len(messages) and messages[start].role is Role.TOOL:
        start += 1
    omitted = messages[opening_end:start]
    if not omitted:
        return list(messages)
    calls = [call.name for message in omitted for call in message.tool_calls]
    named = ", ".join(calls[-MAX_CALLS_NAMED:]) or "none"
    note = Message(Role.USER, OMITTED.format(calls=named))
    return [*messages[:opening_end], note, *messages[start:]]


def _opening_end(messages: Sequence[Message]) -> int:
    for index, message in enumerate(messages):
        if message.role is Role.ASSISTANT:
            return index
    return len(messages)
