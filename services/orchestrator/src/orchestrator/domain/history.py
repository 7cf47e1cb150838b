"""A task's conversation at any of its steps, from the records of its steps alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pydantic import TypeAdapter

from orchestrator.domain.call_check import CheckedCall, check_call
from orchestrator.domain.conversation import (
    Message,
    ModelTurn,
    Role,
    ToolCall,
    ToolResult,
    ToolSpec,
)
from orchestrator.domain.repetition import CallSeen, call_seen, repeats
from orchestrator.domain.steps import (
    CONVERSATION,
    EMPTY_ANSWER,
    MODEL,
    REPEATED,
    TOOL,
    TOOLS,
    Asked,
    Called,
    Inherited,
    Offered,
    StepRecord,
)

T = TypeVar("T")

BROKEN_OFF = (
    "[The task ended before this call had a result. What it had done by then is kept: look before "
    "you call it again.]"
)
MAX_ID_CHARS = 40
"""The longest id of a tool call that every endpoint takes."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said up to a step.

    Args:
        messages: In order, without the instructions of the agent. Every call has its result.
        step: The last step that has a part in it; less than what was asked for if there was none.
        heard: The number of the last user message in it.
        answered: The last of the messages is the model's answer.
    """

    messages: tuple[Message, ...]
    step: int
    heard: int
    answered: bool


def conversation_at(
    records: Sequence[StepRecord], query: str, step: int | None, repeats_named: int
) -> Conversation:
    """The conversation of a task as its model would have been shown it after a step.

    Args:
        records: The task's completed steps.
        query: What it was asked; empty if it only goes on from another task's conversation.
        step: The step; None for the whole. Calls of the last turn that had no result by then are
            left out of a part, and in the whole are said to be broken off.
        repeats_named: As of the agent that worked on it.
    """
    replay = _Replay(records, step, repeats_named)
    messages = [*replay.inherited(), *([Message(Role.USER, query)] if query else [])]
    return replay.go(messages)


def with_distinct_calls(turn: ModelTurn, earlier: Sequence[Message]) -> ModelTurn:
    """The turn, with new ids for calls whose id is taken: results are told apart by it.

    A model may number the calls of every answer anew, and a conversation may go on with another
    model.
    """
    taken = {call.id for message in earlier for call in message.tool_calls}
    calls = []
    for call in turn.message.tool_calls:
        chosen = _free(call.id, taken)
        taken.add(chosen)
        calls.append(call if chosen == call.id else replace(call, id=chosen))
    if tuple(calls) == turn.message.tool_calls:
        return turn
    return replace(turn, message=replace(turn.message, tool_calls=tuple(calls)))


def _free(wanted: str, taken: set[str]) -> str:
    chosen, number = wanted or "call", 1
    while chosen in taken:
        number += 1
        ending = f"_{number}"
        chosen = f"{(wanted or 'call')[: MAX_ID_CHARS - len(ending)]}{ending}"
    return chosen


@dataclass(slots=True)
class _Replay:
    """Goes through the steps as the loop did."""

    records: Sequence[StepRecord]
    until: int | None
    repeats_named: int
    step: int = 0
    heard: int = 0
    answered: bool = False
    _seen: list[CallSeen] = field(default_factory=list)

    def inherited(self) -> tuple[Message, ...]:
        record = self._first(CONVERSATION)
        return () if record is None else _read(Inherited, record).messages

    def go(self, messages: list[Message]) -> Conversation:
        steps = {each.number: each for each in self.records if each.kind in (MODEL, TOOL)}
        tools = self._tools()
        while (record := self._next(steps)) is not None and record.kind == MODEL:
            asked = _read(Asked, record)
            self.step += 1
            self.answered = False
            for said in asked.heard:
                messages.append(Message(Role.USER, said.text))
                self.heard = said.number
            messages += self._turn(asked.turn.message, tools, steps)
        return Conversation(tuple(messages), self.step, self.heard, self.answered)

    def _turn(
        self, turn: Message, tools: Sequence[ToolSpec], steps: Mapping[int, StepRecord]
    ) -> list[Message]:
        """A turn of the model and what it was told in return."""
        if turn.tool_calls:
            return self._calls(turn, tools, steps)
        if turn.text.strip():
            self.answered = True
            return [turn]
        return [turn, Message(Role.USER, EMPTY_ANSWER)]

    def _calls(
        self, turn: Message, tools: Sequence[ToolSpec], steps: Mapping[int, StepRecord]
    ) -> list[Message]:
        results: list[Message] = []
        for call in turn.tool_calls:
            result = self._result(check_call(call, tools), steps)
            if result is None:
                break
            self.step += 1
            text = self._told(call, result)
            results.append(Message(Role.TOOL, text, tool_call_id=call.id, step=self.step))
        missing = turn.tool_calls[len(results) :]
        if missing and self.until is None:
            results += [Message(Role.TOOL, BROKEN_OFF, tool_call_id=call.id) for call in missing]
        elif missing:
            turn = replace(turn, tool_calls=turn.tool_calls[: len(results)])
        return [turn, *results] if turn.tool_calls or turn.text.strip() else []

    def _result(self, checked: CheckedCall, steps: Mapping[int, StepRecord]) -> ToolResult | None:
        """The result of the next call; None if it had none by then."""
        if checked.complaint:
            # Answered by the loop itself: such a step has no record.
            within = self.until is None or self.step < self.until
            return ToolResult(checked.complaint, is_error=True) if within else None
        record = self._next(steps)
        return None if record is None or record.kind != TOOL else _read(Called, record).result

    def _told(self, call: ToolCall, result: ToolResult) -> str:
        self._seen.append(call_seen(call, result))
        count = repeats(self._seen)
        return result.text + (REPEATED.format(count=count) if count >= self.repeats_named else "")

    def _next(self, steps: Mapping[int, StepRecord]) -> StepRecord | None:
        if self.until is not None and self.step >= self.until:
            return None
        return steps.get(self.step + 1)

    def _tools(self) -> tuple[ToolSpec, ...]:
        record = self._first(TOOLS)
        return () if record is None else _read(Offered, record).offered

    def _first(self, kind: str) -> StepRecord | None:
        return next((each for each in self.records if each.kind == kind), None)


def _read(kind: type[T], record: StepRecord) -> T:
    return TypeAdapter(kind).validate_json(record.output)
