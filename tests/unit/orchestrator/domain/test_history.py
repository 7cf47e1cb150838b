"""The conversation at any step, from the records of a loop that really ran."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from tests.support.loop import HeldClock, KeptSteps, PreparedTools, always, counting

from orchestrator.agent import Agent, AgentLoop
from orchestrator.domain.budget import Budget
from orchestrator.domain.conversation import Message, ModelTurn, Role, ToolCall, ToolSpec, Usage
from orchestrator.domain.events import NewEvent
from orchestrator.domain.history import BROKEN_OFF, conversation_at, with_distinct_calls
from orchestrator.domain.steps import EMPTY_ANSWER, StepRecord, UserMessage
from orchestrator.ports import OnText

AGENT = Agent("test", "Be brief.", "a-model", 100_000, 10.0)


def call(id_: str, name: str = "count", arguments: str = "{}") -> ToolCall:
    return ToolCall(id_, name, arguments)


def turn(text: str = "", *calls: ToolCall) -> ModelTurn:
    return ModelTurn(Message(Role.ASSISTANT, text, tool_calls=calls), Usage())


@dataclass(slots=True)
class Speaker:
    """A model that says prepared turns and remembers what it was shown."""

    turns: list[ModelTurn]
    shown: list[list[Message]] = field(default_factory=list)

    async def complete(
        self,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        timeout_seconds: float,
        on_text: OnText | None = None,
    ) -> ModelTurn:
        self.shown.append(list(messages))
        return self.turns.pop(0)


TURNS = [
    turn("First.", call("a"), call("b")),  # 1; 2, 3
    turn(""),  # 4
    turn("", call("a", "nothing"), call("c", "same")),  # 5; 6 is no tool, 7
    turn("", call("d", "same"), call("e", "same")),  # 8; 9, 10 is named a repetition
    turn("Done."),  # 11
    turn("More."),  # 12
]
SAID = {4: UserMessage(1, "Mind the gap."), 11: UserMessage(2, "And more?")}


@dataclass(slots=True)
class Run:
    model: Speaker
    records: list[StepRecord]
    messages: list[Message]


async def run(turns: Sequence[ModelTurn] = TURNS) -> Run:
    """A loop over the turns; a user speaks now and then."""
    model, steps = Speaker(list(turns)), KeptSteps()
    loop: AgentLoop

    async def inbox(after: int) -> Sequence[UserMessage]:
        return [
            said for step, said in SAID.items() if said.number > after and loop.ledger.steps > step
        ]

    async def record(_: NewEvent) -> None:
        return None

    loop = AgentLoop(
        agent=AGENT,
        budget=Budget(100, 1_000_000, 100.0),
        model=model,
        toolbox=PreparedTools({"count": counting("number"), "same": always("same")}),
        steps=steps,
        record=record,
        clock=HeldClock(),
        inbox=inbox,
    )
    assert await loop.run("Do it.") == "Done."
    assert await loop.go_on() == "More."
    kept = [StepRecord(name, value.decode())
            for name, value in steps.kept.items() if isinstance(value, bytes)]  # fmt: skip
    return Run(model, kept, loop._messages)


def shown_after(run: Run, step: int) -> list[Message]:
    """What the model was shown in the request after a step, without the instructions."""
    requests = {0: 0, 3: 1, 4: 2, 7: 3, 10: 4, 11: 5}
    return run.model.shown[requests[step]][1:]


@pytest.mark.parametrize("step", [0, 3, 4, 7, 10, 11])
async def test_it_is_what_the_model_was_shown(step: int) -> None:
    ran = await run()
    found = conversation_at(ran.records, "Do it.", step, AGENT.repeats_named)
    shown = shown_after(ran, step)
    # What was said since is heard by the next request only.
    heard = [each for each in shown if each.text not in {said.text for said in SAID.values()}]
    told = [each for each in found.messages
            if each.text not in {said.text for said in SAID.values()}]  # fmt: skip
    assert told == heard
    assert found.step == step
    assert found.answered == (step == 11)


async def test_the_whole() -> None:
    ran = await run()
    found = conversation_at(ran.records, "Do it.", None, AGENT.repeats_named)
    assert list(found.messages) == ran.messages[1:]
    assert (found.step, found.heard, found.answered) == (12, 2, True)
    users = [each.text for each in found.messages if each.role is Role.USER]
    assert users == ["Do it.", EMPTY_ANSWER, "Mind the gap.", "And more?"]
    assert any("2 times" in each.text or "3 times" in each.text for each in found.messages)
    beyond = conversation_at(ran.records, "Do it.", 99, AGENT.repeats_named)
    assert beyond == found


@pytest.mark.parametrize(
    ("step", "calls", "results"), [(1, (), 0), (2, ("a",), 1), (3, ("a", "b"), 2)]
)
async def test_calls_without_a_result_by_then_are_left_out(
    step: int, calls: tuple[str, ...], results: int
) -> None:
    ran = await run()
    found = conversation_at(ran.records, "Do it.", step, AGENT.repeats_named)
    assert tuple(each.id for each in found.messages[1].tool_calls) == calls
    assert found.messages[1].text == "First."
    assert len(found.messages) == 2 + results


async def test_calls_that_were_broken_off_are_said_to_be() -> None:
    ran = await run()
    broken = [each for each in ran.records if each.number < 3 or each.kind == "tools"]
    found = conversation_at(broken, "Do it.", None, AGENT.repeats_named)
    assert [each.text for each in found.messages[2:]] == ["number 1", BROKEN_OFF]
    assert found.messages[-1].tool_call_id == "b"


async def test_of_a_task_that_has_not_begun() -> None:
    found = conversation_at([], "Do it.", 0, 3)
    assert [each.text for each in found.messages] == ["Do it."]
    assert conversation_at([], "", None, 3).messages == ()


async def test_an_inherited_conversation_comes_first() -> None:
    ran = await run()
    inherited = (
        '{"messages": [{"role": "user", "text": "Before."}, {"role": "assistant", "text": "Yes."}]}'
    )
    records = [StepRecord("conversation", inherited), *ran.records]
    found = conversation_at(records, "Do it.", 0, 3)
    assert [each.text for each in found.messages] == ["Before.", "Yes.", "Do it."]


async def test_ids_of_calls_are_distinct_in_all_of_it() -> None:
    ran = await run()
    ids = [each.id for message in ran.messages for each in message.tool_calls]
    assert len(set(ids)) == len(ids) == 6
    assert ids[2] == "a_2"
    results = [each.tool_call_id for each in ran.messages if each.role is Role.TOOL]
    assert results == ids


@pytest.mark.parametrize("taken", ["x" * 40, "", "a_2"])
def test_a_new_id_is_legal(taken: str) -> None:
    earlier = [turn("", call(taken), call("a")).message]
    new = with_distinct_calls(turn("", call(taken), call(taken), call("a")), earlier)
    ids = [each.id for each in new.message.tool_calls]
    assert len({*ids, taken, "a"}) == 5
    assert all(0 < len(each) <= 40 for each in ids)


def test_a_turn_with_free_ids_stays_as_it_is() -> None:
    said = turn("", call("a"))
    assert with_distinct_calls(said, [replace(said.message, tool_calls=())]) is said
