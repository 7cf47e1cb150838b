"""Recognise a model that goes round in circles."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.conversation import ToolCall, ToolResult

LONGEST_CYCLE = 3


@dataclass(frozen=True, slots=True)
class CallSeen:
    """A call with its result; equal values mean that nothing new was learnt."""

    name: str
    arguments: str
    result: str


def call_seen(call: ToolCall, result: ToolResult) -> CallSeen:
    """A call as it is compared with others; long results are told apart by a digest."""
    digest = hashlib.sha256(result.text.encode(errors="replace")).hexdigest()
    return CallSeen(call.name, call.arguments, digest)


def repeats(history: Sequence[CallSeen]) -> int:
    """How often the last calls repeat the ones before them, without anything else between.

    A cycle of up to three calls counts, so that `a b a b a b` is seen as well as `a a a`.
    Returns 1 if the last call is new.
    """
    return max(
        (_repeats_of_cycle(history, length) for length in range(1, LONGEST_CYCLE + 1)), default=1
    )


def _repeats_of_cycle(history: Sequence[CallSeen], length: int) -> int:
    if len(history) < length:
        return 1
    cycle = history[len(history) - length :]
    count = 0
    end = len(history)
    while end >= length and list(history[end - length : end]) == list(cycle):
        count += 1
        end -= length
    return count
