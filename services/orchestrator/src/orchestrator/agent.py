"""The loop: ask the model, run the tools it calls, feed the results back, until it answers."""

from asyncio import timeout
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from pydantic import JsonValue

from orchestrator.domain.budget import Budget, Spent, StopReason, exhausted, used_up
from orchestrator.domain.call_check import CheckedCall, check_call
from orchestrator.domain.context_window import compact, estimate_schemas
from orchestrator.domain.conversation import (
    Message,
    ModelTurn,
    Role,
    ToolCall,
    ToolResult,
    ToolSpec,
)
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.domain.history import with_distinct_calls
from orchestrator.domain.live_text import TextDelta
from orchestrator.domain.repetition import CallSeen, call_seen, repeats
from orchestrator.domain.steps import (
    EMPTY_ANSWER,
    REPEATED,
    TOOLS,
    Asked,
    Called,
    Offered,
    UserMessage,
    model_step,
    tool_step,
)
from orchestrator.errors import ModelMisbehaved, ModelRepeatedItself, ModelTimeout
from orchestrator.ports import Clock, Model, Steps, Toolbox

T = TypeVar("T")
Record = Callable[[NewEvent], Awaitable[object]]
Say = Callable[[int, TextDelta], None]
"""Gets what the model says in a step, as it says it."""
Inbox = Callable[[int], Awaitable[Sequence[UserMessage]]]
"""What the user has said to the task after the message of a number, in order."""

TRUNCATED = "The model's answer was cut off at its length limit."
SHOWN_IN_EVENT = 2_000
ONCE = "once"
"""Key of the one event that a step has."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Who works on a task: its instructions, its model and the habits of its loop.

    A turn is unusable if it has neither an answer nor a call that can be run; `invalid_turns` of
    them in a row end a task. A call repeated `repeats_named` times with
    the same result is named to the model, and `repeats_ended` times ends the task.
    """

    name: str
    instructions: str
    model: str
    context_tokens: int
    model_timeout_seconds: float
    invalid_turns: int = 3
    repeats_named: int = 3
    repeats_ended: int = 5


async def no_inbox(_after: int) -> Sequence[UserMessage]:
    """An inbox nobody writes to."""
    return ()


@dataclass(slots=True)
class Ledger:
    """What a loop has used so far; right at any moment, also after an error.

    It is counted from the steps' own records, so a loop that runs again after a crash comes to the
    same figures, and time in which nothing ran is not charged.
    """

    steps: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    tool_seconds: float = 0.0
    heard: int = 0
    """The number of the last user message that the model was shown."""
    notices: dict[str, None] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def seconds(self) -> float:
        """Time in model and tool calls together."""
        return self.model_seconds + self.tool_seconds


class AgentLoop:
    """One run of an agent on one query.

    Every model call and every tool call is a step: run again from the top after a crash, the loop
    takes the same way through the steps that were completed and goes on from there.
    """

    def __init__(
        self,
        *,
        agent: Agent,
        budget: Budget,
        model: Model,
        toolbox: Toolbox,
        steps: Steps,
        record: Record,
        clock: Clock,
        say: Say | None = None,
        inbox: Inbox = no_inbox,
    ) -> None:
        self._agent = agent
        self._budget = budget
        self._model = model
        self._toolbox = toolbox
        self._steps = steps
        self._record = record
        self._say = say
        self._clock = clock
        self._inbox = inbox
        self._tools: Sequence[ToolSpec] = ()
        self._messages: list[Message] = []
        self._invalid_in_a_row = 0
        self._seen: list[CallSeen] = []
        self.ledger = Ledger()

    async def run(self, query: str, earlier: Sequence[Message] = ()) -> str:
        """Work on the query until the model answers.

        Args:
            query: What the user asks; empty to go on where `earlier` ends.
            earlier: A conversation that the query follows, without instructions.

        Raises:
            BudgetExhausted: A limit was reached first.
            ModelMisbehaved: The model made unusable turns in a row.
            ModelRepeatedItself: It made the same call with the same result too often.
            ModelFailure: The model endpoint failed.
            RuntimeFailure: The tools' container failed.
        """
        self._tools = await self._offered()
        self._messages = [Message(Role.SYSTEM, self._agent.instructions), *earlier]
        if query:
            self._messages.append(Message(Role.USER, query))
        return await self.go_on()

    async def go_on(self) -> str:
        """The model's next answer; after an answer, the one to what was said since.

        Raises:
            BerthError: See `run`.
        """
        while True:
            turn = await self._ask()
            self._messages.append(turn.message)
            if turn.message.tool_calls:
                self._messages += await self._answer_calls(turn.message.tool_calls, self._tools)
            elif turn.message.text.strip():
                if turn.finish_reason == "length":
                    self.ledger.notices[TRUNCATED] = None
                return turn.message.text
            else:
                self._count_invalid("it answered with nothing")
                self._messages.append(Message(Role.USER, EMPTY_ANSWER))

    async def _offered(self) -> tuple[ToolSpec, ...]:
        async def list_tools() -> Offered:
            listed = await self._in_time(self._toolbox.tools(), self._budget.max_seconds)
            return Offered(tuple(listed))

        return (await self._steps.run(TOOLS, Offered, list_tools)).offered

    async def _ask(self) -> ModelTurn:
        seconds_left = self._begin_step()
        allowed = min(seconds_left, self._agent.model_timeout_seconds)
        began = self._clock.monotonic()

        async def ask() -> Asked:
            heard = tuple(await self._inbox(self.ledger.heard))
            messages = [*self._messages, *_spoken(heard)]
            fitting = compact(messages, self._agent.context_tokens, estimate_schemas(self._tools))
            on_text = None if self._say is None else partial(self._say, self.ledger.steps)
            turn = await self._model.complete(
                self._agent.model, fitting, self._tools, allowed, on_text
            )
            distinct = with_distinct_calls(turn, messages)
            return Asked(distinct, self._clock.monotonic() - began, heard)

        try:
            done = await self._steps.run(model_step(self.ledger.steps), Asked, ask)
        except BaseException as error:
            self.ledger.model_seconds += self._clock.monotonic() - began
            if isinstance(error, ModelTimeout) and allowed == seconds_left:
                raise used_up(StopReason.MAX_SECONDS, self._budget) from None
            raise
        self.ledger.model_seconds += done.seconds
        self._note(done.turn)
        await self._hear(done.heard)
        await self._record_turn(done.turn, done.seconds)
        return done.turn

    async def _hear(self, heard: Sequence[UserMessage]) -> None:
        self._messages += _spoken(heard)
        for said in heard:
            self.ledger.heard = said.number
            data: dict[str, JsonValue] = {"number": said.number, "text": said.text}
            event = NewEvent(EventKind.MESSAGE, self.ledger.steps, data, str(said.number))
            await self._record(event)

    async def _answer_calls(
        self, calls: Sequence[ToolCall], tools: Sequence[ToolSpec]
    ) -> list[Message]:
        checked = [check_call(call, tools) for call in calls]
        messages = [
            await self._answer_call(call, check) for call, check in zip(calls, checked, strict=True)
        ]
        if all(check.complaint for check in checked):
            self._count_invalid(checked[-1].complaint)
        else:
            self._invalid_in_a_row = 0
        return messages

    async def _answer_call(self, call: ToolCall, checked: CheckedCall) -> Message:
        seconds_left = self._begin_step()
        step = self.ledger.steps
        done = await self._result(call.name, checked, seconds_left)
        self.ledger.tool_seconds += done.seconds
        await self._record_call(call, done.result, done.seconds)
        count = self._count_repeat(call, done.result)
        text = done.result.text
        if count >= self._agent.repeats_named:
            text += REPEATED.format(count=count)
        return Message(Role.TOOL, text, tool_call_id=call.id, step=step)

    async def _result(self, name: str, checked: CheckedCall, seconds_left: float) -> Called:
        if checked.complaint:
            return Called(ToolResult(checked.complaint, is_error=True), 0.0)
        step = self.ledger.steps
        began = self._clock.monotonic()

        async def call() -> Called:
            work = self._toolbox.call(name, checked.arguments, key=str(step))
            result = await self._in_time(work, seconds_left)
            return Called(result, self._clock.monotonic() - began)

        try:
            return await self._steps.run(tool_step(step, name), Called, call)
        except BaseException:
            self.ledger.tool_seconds += self._clock.monotonic() - began
            raise

    async def _in_time(self, work: Awaitable[T], seconds_left: float) -> T:
        limit = timeout(seconds_left)
        try:
            async with limit:
                return await work
        except TimeoutError:
            if not limit.expired():
                raise  # not our limit but a defect inside
            raise used_up(StopReason.MAX_SECONDS, self._budget) from None

    def _begin_step(self) -> float:
        """Check the budget before it is spent; returns the seconds that are left."""
        spent = Spent(self.ledger.steps, self.ledger.tokens, self.ledger.seconds)
        reason = exhausted(self._budget, spent)
        if reason is not None:
            raise used_up(reason, self._budget)
        self.ledger.steps += 1
        return self._budget.max_seconds - self.ledger.seconds

    def _note(self, turn: ModelTurn) -> None:
        self.ledger.prompt_tokens += turn.usage.prompt_tokens
        self.ledger.completion_tokens += turn.usage.completion_tokens
        if turn.scripted:
            self.ledger.notices[scripted_notice(turn.scripted)] = None

    def _count_invalid(self, complaint: str) -> None:
        self._invalid_in_a_row += 1
        if self._invalid_in_a_row >= self._agent.invalid_turns:
            raise ModelMisbehaved(
                f"The model made {self._invalid_in_a_row} unusable turns in a row; the last one: "
                f"{complaint[:300]} Try again, or use a stronger model."
            )

    def _count_repeat(self, call: ToolCall, result: ToolResult) -> int:
        self._seen.append(call_seen(call, result))
        count = repeats(self._seen)
        if count >= self._agent.repeats_ended:
            raise ModelRepeatedItself(
                f"The model called {call.name} {count} times with the same arguments and the same "
                "result. Ask in other words, or use a stronger model."
            )
        return count

    async def _record_turn(self, turn: ModelTurn, seconds: float) -> None:
        data: dict[str, JsonValue] = {
            "text": turn.message.text,
            "calls": [
                {"id": call.id, "name": call.name, "arguments": call.arguments}
                for call in turn.message.tool_calls
            ],
            "model": turn.model,
            "finish_reason": turn.finish_reason,
            "prompt_tokens": turn.usage.prompt_tokens,
            "completion_tokens": turn.usage.completion_tokens,
            "seconds": round(seconds, 4),
        }
        await self._record(NewEvent(EventKind.MODEL, self.ledger.steps, data, ONCE))

    async def _record_call(self, call: ToolCall, result: ToolResult, seconds: float) -> None:
        data: dict[str, JsonValue] = {
            "id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "result": result.text[:SHOWN_IN_EVENT],
            "is_error": result.is_error,
            "seconds": round(seconds, 4),
        }
        await self._record(NewEvent(EventKind.TOOL, self.ledger.steps, data, ONCE))


def _spoken(messages: Sequence[UserMessage]) -> list[Message]:
    return [Message(Role.USER, each.text) for each in messages]


def scripted_notice(play: str) -> str:
    """What users are told when the scripted model spoke instead of a real one."""
    return (
        f"The scripted model played '{play}': the wording comes from a script, the tool results "
        "are real. Set GPT_OSS_URL to use a real model."
    )
