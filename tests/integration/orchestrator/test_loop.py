"""The loop with the real model client against the scripted model as a process."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from tests.support.loop import (
    PATH,
    Answer,
    HeldClock,
    KeptSteps,
    PlainSteps,
    PreparedTools,
    always,
    counting,
)
from tests.support.scripted import scripted_model

from orchestrator.agent import TRUNCATED, Agent, AgentLoop
from orchestrator.clock import SystemClock
from orchestrator.domain.budget import Budget, StopReason
from orchestrator.domain.conversation import ToolResult
from orchestrator.domain.events import EventKind, NewEvent
from orchestrator.errors import (
    BerthError,
    BudgetExhausted,
    DatabaseUnavailable,
    ModelMisbehaved,
    ModelRefused,
    ModelRepeatedItself,
    ModelTimeout,
    ModelUnavailable,
    WorkerUnreachable,
)
from orchestrator.flow.ending import failed
from orchestrator.model.openai_client import OpenAIModel
from orchestrator.ports import Clock, Model, Steps

E = TypeVar("E", bound=BerthError)
Turn = dict[str, Any]
AGENT = Agent("tester", "You work in a repository.", "scripted", 100_000, 30.0)
AMPLE = Budget(max_steps=100, max_tokens=1_000_000, max_seconds=60.0)
PLAYS: dict[str, list[Turn]] = {}

T = TypeVar("T")


def play(name: str, *turns: Turn) -> str:
    """Have the model play these turns for a query that is this name."""
    assert name not in PLAYS
    PLAYS[name] = list(turns)
    return name


def calls(*named: str | tuple[str, str], **turn: Any) -> Turn:
    """A turn with calls: names alone, or with their arguments as raw text."""
    pairs = [(each, "{}") if isinstance(each, str) else each for each in named]
    return {"calls": [{"tool": tool, "raw_arguments": raw} for tool, raw in pairs], **turn}


@dataclass(slots=True)
class Stage:
    """A loop with all that is around it."""

    model: Model
    tools: PreparedTools
    agent: Agent = AGENT
    budget: Budget = AMPLE
    clock: Clock = field(default_factory=SystemClock)
    steps: Steps = field(default_factory=PlainSteps)
    events: list[NewEvent] = field(default_factory=list)

    def loop(self) -> AgentLoop:
        async def record(event: NewEvent) -> None:
            self.events.append(event)

        return AgentLoop(
            agent=self.agent,
            budget=self.budget,
            model=self.model,
            toolbox=self.tools,
            steps=self.steps,
            record=record,
            clock=self.clock,
        )

    @property
    def kinds(self) -> list[tuple[EventKind, int]]:
        return [(event.kind, event.step) for event in self.events]

    @property
    def results(self) -> list[object]:
        return [event.data["result"] for event in self.events if event.kind is EventKind.TOOL]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("plays")
    for name, turns in PLAYS.items():
        script = {"name": name, "when": {"matches": [f"^{name}$"]}, "turns": turns}
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(script))
    with scripted_model(directory) as model:
        yield model.url


@pytest.fixture
async def stage(endpoint: str) -> AsyncIterator[Stage]:
    model = OpenAIModel(endpoint, "key")
    tools = PreparedTools(
        {"same": always("same"), "count": counting("result"), "read": always("content")},
        schemas={"read": PATH},
    )
    yield Stage(model, tools)
    await model.close()


async def ended(loop: AgentLoop, query: str, kind: type[E]) -> E:
    with pytest.raises(kind) as raised:
        await loop.run(query)
    return raised.value


def stop_reason(error: BerthError) -> StopReason:
    return failed(error).stop_reason


ANSWER = play(
    "answer", {"say": "Forty-two.", "usage": {"prompt_tokens": 7, "completion_tokens": 5}}
)


async def test_an_answer_ends_the_loop(stage: Stage) -> None:
    loop = stage.loop()
    assert await loop.run(ANSWER) == "Forty-two."
    assert stage.kinds == [(EventKind.MODEL, 1)]
    assert stage.events[0].data["text"] == "Forty-two."
    assert stage.events[0].data["finish_reason"] == "stop"
    assert (loop.ledger.steps, loop.ledger.prompt_tokens, loop.ledger.completion_tokens) == (
        1,
        7,
        5,
    )
    assert loop.ledger.tokens == 12
    assert 0 < loop.ledger.model_seconds < 10
    assert loop.ledger.tool_seconds == 0
    (notice,) = loop.ledger.notices
    assert "scripted model played 'answer'" in notice


SEVERAL = play(
    "several",
    calls(
        ("count", '{"n": 1}'),
        ("read", '{"path": "a"}'),
        ("count", '{"n": 2}'),
        expect={
            "system_contains": "You work in a repository.",
            "message_count": 2,
            "tools_offered": ["same", "count", "read"],
        },
        say="First I look.",
    ),
    {
        "say": "{{ tool[0] }}, {{ tool[1] }}, {{ tool[2] }}",
        "expect": {"tool_results": 3, "last_tool_name": "count", "message_count": 6},
    },
)


async def test_several_calls_in_one_turn_run_in_order(stage: Stage) -> None:
    loop = stage.loop()
    assert await loop.run(SEVERAL) == "result 1, content, result 2"
    assert stage.tools.calls == [("count", {"n": 1}), ("read", {"path": "a"}), ("count", {"n": 2})]
    assert stage.kinds == [
        (EventKind.MODEL, 1),
        (EventKind.TOOL, 2),
        (EventKind.TOOL, 3),
        (EventKind.TOOL, 4),
        (EventKind.MODEL, 5),
    ]
    assert stage.events[0].data["text"] == "First I look."
    assert stage.events[0].data["calls"] == [
        {"id": "call_0_0", "name": "count", "arguments": '{"n": 1}'},
        {"id": "call_0_1", "name": "read", "arguments": '{"path": "a"}'},
        {"id": "call_0_2", "name": "count", "arguments": '{"n": 2}'},
    ]
    assert [event.data["id"] for event in stage.events[1:4]] == ["call_0_0", "call_0_1", "call_0_2"]
    assert loop.ledger.steps == 5


UNUSABLE = {
    "unknown-tool": (calls("shell"), "There is no tool 'shell'. The tools are: count, read, same."),
    "bad-json": (calls(("read", '{"path": ')), "not a JSON object"),
    "no-object": (calls(("read", '["a"]')), "not a JSON object"),
    "misfit": (calls(("read", '{"path": 5}')), "do not fit at 'path': 5 is not of type 'string'"),
    "missing": (calls("read"), "'path' is a required property"),
}
for _name, (_turn, _said) in UNUSABLE.items():
    play(_name, _turn, {"say": "Sorry.", "expect": {"last_tool_contains": _said}})


@pytest.mark.parametrize("name", UNUSABLE)
async def test_a_call_that_cannot_be_run_goes_back_to_the_model(stage: Stage, name: str) -> None:
    assert await stage.loop().run(name) == "Sorry."
    assert stage.tools.calls == []
    assert stage.kinds == [(EventKind.MODEL, 1), (EventKind.TOOL, 2), (EventKind.MODEL, 3)]
    assert stage.events[1].data["is_error"] is True


EMPTY = play(
    "empty",
    {"empty": True},
    {"say": " \n"},
    {"say": "Here.", "expect": {"last_role": "user", "last_contains": "neither an answer nor"}},
)


async def test_an_answer_of_nothing_goes_back_to_the_model(stage: Stage) -> None:
    assert await stage.loop().run(EMPTY) == "Here."


THREE_BAD = play("three-bad", calls("shell"), calls(("read", "{")), {"empty": True}, {"say": "?"})


async def test_three_unusable_turns_in_a_row_end_the_task(stage: Stage) -> None:
    loop = stage.loop()
    error = await ended(loop, THREE_BAD, ModelMisbehaved)
    assert "3 unusable turns" in error.detail
    assert stop_reason(error) is StopReason.INVALID_TURNS
    assert loop.ledger.steps == 5
    assert [step for _, step in stage.kinds] == [1, 2, 3, 4, 5]


NEARLY_BAD = play(
    "nearly-bad",
    {"empty": True},
    calls("shell"),
    calls("same"),
    calls("read"),
    {"empty": True},
    {"say": "Done."},
)


async def test_a_good_call_in_between_forgives(stage: Stage) -> None:
    assert await stage.loop().run(NEARLY_BAD) == "Done."


MANY_BAD = play(
    "many-bad",
    calls("read", ("read", "{"), "shell", ("read", "[]")),
    {"say": "I see.", "expect": {"tool_results": 4}},
)


async def test_many_bad_calls_in_one_turn_are_one_unusable_turn(stage: Stage) -> None:
    """The model must see what was wrong before it can be blamed for doing it again."""
    assert await stage.loop().run(MANY_BAD) == "I see."


MIXED = play(
    "mixed", *(calls("count", ("read", f'{{"n": {n}}}')) for n in range(4)), {"say": "Through."}
)


async def test_a_turn_with_one_good_call_is_usable(stage: Stage) -> None:
    assert await stage.loop().run(MIXED) == "Through."


ERROR_RESULT = play(
    "error-result",
    calls("fail"),
    {"say": "It failed.", "expect": {"last_tool_contains": "No such"}},
)


async def test_a_failure_inside_a_tool_is_a_result(stage: Stage) -> None:
    async def fail(_: dict[str, object]) -> ToolResult:
        return ToolResult("No such file.", is_error=True)

    stage.tools.answers["fail"] = fail
    assert await stage.loop().run(ERROR_RESULT) == "It failed."
    assert stage.events[1].data["is_error"] is True


TOKENS = {"prompt_tokens": 40, "completion_tokens": 20}
ENDLESS = play("endless", calls("count", "count", usage=TOKENS, repeat="forever"))


@pytest.mark.parametrize(
    ("limit", "steps", "ran"), [(1, 1, 0), (2, 2, 1), (3, 3, 2), (4, 4, 2), (5, 5, 3)]
)
async def test_steps_are_checked_before_they_are_taken(
    stage: Stage, limit: int, steps: int, ran: int
) -> None:
    stage.budget = replace(AMPLE, max_steps=limit)
    loop = stage.loop()
    error = await ended(loop, ENDLESS, BudgetExhausted)
    assert stop_reason(error) is StopReason.MAX_STEPS
    assert f"{limit} steps" in error.detail
    assert (loop.ledger.steps, len(stage.tools.calls)) == (steps, ran)
    assert [step for _, step in stage.kinds] == list(range(1, steps + 1))


@pytest.mark.parametrize(("limit", "tokens", "ran"), [(60, 60, 0), (61, 120, 2), (121, 180, 4)])
async def test_tokens_are_checked_before_each_step(
    stage: Stage, limit: int, tokens: int, ran: int
) -> None:
    stage.budget = replace(AMPLE, max_tokens=limit)
    loop = stage.loop()
    error = await ended(loop, ENDLESS, BudgetExhausted)
    assert stop_reason(error) is StopReason.MAX_TOKENS
    assert (loop.ledger.tokens, len(stage.tools.calls)) == (tokens, ran)


async def test_seconds_are_checked_before_each_step(stage: Stage) -> None:
    clock = HeldClock(1_000.0)

    async def slow(_: dict[str, object]) -> ToolResult:
        clock.seconds += 4.0
        return ToolResult(f"at {clock.seconds}")

    stage.tools.answers["count"] = slow
    stage.clock, stage.budget = clock, replace(AMPLE, max_seconds=10.0)
    loop = stage.loop()
    error = await ended(loop, ENDLESS, BudgetExhausted)
    assert stop_reason(error) is StopReason.MAX_SECONDS
    assert len(stage.tools.calls) == 3
    assert loop.ledger.tool_seconds == 12.0
    assert loop.ledger.model_seconds == 0.0
    assert [event.data["seconds"] for event in stage.events if event.kind is EventKind.TOOL] == [
        4.0, 4.0, 4.0
    ]  # fmt: skip


HANG = play("hang", calls("hang"), {"say": "?"})


def hanging(ends: list[str]) -> Answer:
    async def hang(_: dict[str, object]) -> ToolResult:
        try:
            await asyncio.sleep(60)
        finally:
            ends.append("ended")
        return ToolResult("late")

    return hang


async def test_a_tool_that_hangs_ends_with_the_seconds(stage: Stage) -> None:
    ends: list[str] = []
    stage.tools.answers["hang"] = hanging(ends)
    stage.budget = replace(AMPLE, max_seconds=1.0)
    loop = stage.loop()
    began = time.monotonic()
    error = await ended(loop, HANG, BudgetExhausted)
    assert 0.9 < time.monotonic() - began < 5
    assert stop_reason(error) is StopReason.MAX_SECONDS
    assert ends == ["ended"]
    assert loop.ledger.steps == 2
    assert 0.3 < loop.ledger.tool_seconds < 5


async def test_tools_that_cannot_be_listed_in_time_end_with_the_seconds(stage: Stage) -> None:
    class Stuck(PreparedTools):
        async def tools(self) -> Any:
            await asyncio.sleep(60)

    stage.tools = Stuck({})
    stage.budget = replace(AMPLE, max_seconds=0.2)
    error = await ended(stage.loop(), HANG, BudgetExhausted)
    assert stop_reason(error) is StopReason.MAX_SECONDS


async def test_a_timeout_inside_a_tool_is_not_taken_for_the_budget(stage: Stage) -> None:
    async def broken(_: dict[str, object]) -> ToolResult:
        raise TimeoutError("inside")

    stage.tools.answers["hang"] = broken
    with pytest.raises(TimeoutError, match="inside"):
        await stage.loop().run(HANG)


LATE_MODEL = play("late-model", {"say": "late", "delay_seconds": 30})


async def test_a_model_that_hangs_ends_with_the_seconds_if_they_are_fewer(stage: Stage) -> None:
    stage.budget = replace(AMPLE, max_seconds=0.5)
    loop = stage.loop()
    error = await ended(loop, LATE_MODEL, BudgetExhausted)
    assert stop_reason(error) is StopReason.MAX_SECONDS
    assert loop.ledger.steps == 1
    assert 0.4 < loop.ledger.model_seconds < 5
    assert stage.events == []


async def test_a_model_that_hangs_longer_than_it_may_is_its_own_failure(stage: Stage) -> None:
    stage.agent = replace(AGENT, model_timeout_seconds=0.5)
    loop = stage.loop()
    error = await ended(loop, LATE_MODEL, ModelTimeout)
    assert stop_reason(error) is StopReason.ERROR
    assert "0.5 s" in error.detail
    assert 0.4 < loop.ledger.model_seconds < 5


AGAIN = play(
    "again",
    calls("same"),
    calls("same", expect={"last_tool_matches": r"\Asame\Z"}),
    calls("same", expect={"last_tool_matches": r"\Asame\Z"}),
    calls("same", expect={"last_tool_contains": "made this call 3 times with this same result"}),
    calls("same", expect={"last_tool_contains": "made this call 4 times"}),
    {"say": "?"},
)


async def test_a_repeated_call_is_named_at_three_and_ended_at_five(stage: Stage) -> None:
    loop = stage.loop()
    error = await ended(loop, AGAIN, ModelRepeatedItself)
    assert "same 5 times" in error.detail
    assert stop_reason(error) is StopReason.REPEATED_CALL
    assert len(stage.tools.calls) == 5
    assert stage.results == ["same"] * 5
    assert loop.ledger.steps == 10


REFORMED = play("reformed", *([calls("same")] * 4), calls("count"), calls("same"), {"say": "Fine."})


async def test_a_model_that_heeds_the_warning_goes_on(stage: Stage) -> None:
    assert await stage.loop().run(REFORMED) == "Fine."


ONE, OTHER = calls("same"), calls(("read", '{"path": "a"}'))
CIRCLE = play(
    "circle",
    *[ONE, OTHER] * 3,
    {**ONE, "expect": {"last_tool_name": "read", "last_tool_contains": "made this call 3 times"}},
    OTHER,
    *[ONE, OTHER] * 5,
)


async def test_going_round_in_a_circle_is_a_repetition_too(stage: Stage) -> None:
    error = await ended(stage.loop(), CIRCLE, ModelRepeatedItself)
    assert "5 times" in error.detail
    assert len(stage.tools.calls) == 10


WORK = play(
    "work",
    *(
        turn
        for n in range(12)
        for turn in (calls(("read", f'{{"path": "{n}"}}')), calls(("same", '{"command": "test"}')))
    ),
    {"say": "Tests pass.", "expect": {"last_tool_matches": r"\Asame\Z"}},
)


async def test_editing_and_testing_in_turn_is_work(stage: Stage) -> None:
    assert await stage.loop().run(WORK) == "Tests pass."


LONG = play(
    "long",
    *(calls(("big", f'{{"n": {n}}}')) for n in range(6)),
    *(
        calls(
            ("big", f'{{"n": {n}}}'),
            expect={
                "max_message_count": 5,
                "last_tool_name": "big",
                "last_tool_contains": f"result {n}",
            },
        )
        for n in range(6, 16)
    ),
    {"say": "{{ tool[-1] | first 1 }}"},
)


async def test_a_long_conversation_is_kept_inside_a_small_window(stage: Stage) -> None:
    numbered = counting("x" * 4_000 + "\nresult")

    async def big(arguments: dict[str, object]) -> ToolResult:
        long = await numbered(arguments)
        return ToolResult(f"head {arguments['n']}\n{long.text}")

    stage.tools = PreparedTools({"big": big})
    stage.agent = replace(AGENT, context_tokens=2_000)
    assert await stage.loop().run(LONG) == "head 15"
    used = [event.data["prompt_tokens"] for event in stage.events if event.kind is EventKind.MODEL]
    assert len(used) == 17
    assert all(isinstance(tokens, int) and tokens < 1_600 for tokens in used)


FORGOTTEN = play(
    "forgotten",
    *(calls(("big", f'{{"n": {n}}}')) for n in range(6)),
    {"say": "{{ tool[0] }}", "expect": {"message_count": 14}},
)


async def test_a_dropped_result_is_named_by_its_step_and_schemas_take_room_too(
    stage: Stage,
) -> None:
    stage.tools = PreparedTools({"big": counting("x" * 1_400)})
    stage.agent = replace(AGENT, context_tokens=3_900)
    assert (await stage.loop().run(FORGOTTEN)).startswith("x")

    stage.tools.schemas["big"] = '{"description": "' + "y" * 2_800 + '"}'
    assert "The result of step 2 was dropped" in await stage.loop().run(FORGOTTEN)


FAILING = play("failing", calls("count", usage=TOKENS), {"status": 401})
DOWN = play("down", calls("count", usage=TOKENS), {"status": 500})


@pytest.mark.parametrize(("query", "kind"), [(FAILING, ModelRefused), (DOWN, ModelUnavailable)])
async def test_the_ledger_is_right_when_the_model_fails(
    stage: Stage, query: str, kind: type[BerthError]
) -> None:
    loop = stage.loop()
    error = await ended(loop, query, kind)
    assert stop_reason(error) is StopReason.ERROR
    assert (loop.ledger.steps, loop.ledger.tokens) == (3, 60)
    assert stage.kinds == [(EventKind.MODEL, 1), (EventKind.TOOL, 2)]


async def test_the_ledger_is_right_when_the_worker_is_lost(stage: Stage) -> None:
    clock = HeldClock()

    async def lost(_: dict[str, object]) -> ToolResult:
        clock.seconds += 3.0
        raise WorkerUnreachable("gone")

    stage.tools.answers["count"], stage.clock = lost, clock
    loop = stage.loop()
    await ended(loop, ENDLESS, WorkerUnreachable)
    assert (loop.ledger.steps, loop.ledger.tokens, loop.ledger.tool_seconds) == (2, 60, 3.0)


async def test_the_ledger_is_right_when_nothing_can_be_recorded(stage: Stage) -> None:
    async def refuse(_: NewEvent) -> None:
        raise DatabaseUnavailable("down")

    loop = AgentLoop(
        agent=AGENT,
        budget=AMPLE,
        model=stage.model,
        toolbox=stage.tools,
        steps=PlainSteps(),
        record=refuse,
        clock=SystemClock(),
    )
    await ended(loop, ENDLESS, DatabaseUnavailable)
    assert (loop.ledger.steps, loop.ledger.tokens) == (1, 60)
    assert stage.tools.calls == []


async def test_a_cancelled_task_knows_what_it_used(stage: Stage) -> None:
    ends: list[str] = []
    called = asyncio.Event()
    hang = hanging(ends)

    async def reached(arguments: dict[str, object]) -> ToolResult:
        called.set()
        return await hang(arguments)

    stage.tools.answers["hang"] = reached
    loop = stage.loop()
    running = asyncio.create_task(loop.run(HANG))
    async with asyncio.timeout(60):
        await called.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ends == ["ended"]
    assert loop.ledger.steps == 2
    assert loop.ledger.tool_seconds > 0


CUT_ANSWER = play("cut-answer", {"say": "It is because", "finish_reason": "length"})
CUT_BEFORE = play("cut-before", {"empty": True, "finish_reason": "length"}, {"say": "All of it."})


async def test_an_answer_that_was_cut_off_is_said_to_be(stage: Stage) -> None:
    cut, whole = stage.loop(), stage.loop()
    assert await cut.run(CUT_ANSWER) == "It is because"
    assert TRUNCATED in cut.ledger.notices
    assert await whole.run(CUT_BEFORE) == "All of it."
    assert TRUNCATED not in whole.ledger.notices


LONG_RESULT = play("long-result", calls("big"), {"say": "{{ tool[0].lines | count }}"})


async def test_an_event_shows_the_start_of_a_long_result(stage: Stage) -> None:
    stage.tools.answers["big"] = always("line\n" * 10_000)
    assert await stage.loop().run(LONG_RESULT) == "10000"
    assert stage.results == [("line\n" * 10_000)[:2_000]]


THREE_STEPS = play(
    "three-steps",
    *[calls("count", usage=TOKENS) for _ in range(3)],
    {"say": "counted", "usage": TOKENS},
)


@pytest.mark.parametrize("killed_after", range(1, 8))
async def test_a_loop_run_again_takes_up_where_it_was_killed(
    stage: Stage, killed_after: int
) -> None:
    class Killed(BaseException):
        """Stands for the end of the process."""

    class Mortal(KeptSteps):
        async def run(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
            if len(self.done) == killed_after and name not in self.kept:
                raise Killed
            return await super().run(name, kind, work)

    stage.tools.answers["count"] = counting("n")
    first = stage.steps = Mortal()
    with pytest.raises(Killed):
        await stage.loop().run(THREE_STEPS)
    stage.steps = KeptSteps(kept=first.kept)
    again = stage.loop()
    assert await again.run(THREE_STEPS) == "counted"
    # Every step was completed once, and the figures are those of one whole run.
    assert len(stage.tools.calls) == 3
    assert not set(first.done) & set(stage.steps.done)
    assert again.ledger.steps == 7
    assert again.ledger.tokens == 4 * 60
