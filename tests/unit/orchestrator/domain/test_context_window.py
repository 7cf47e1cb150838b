"""The context window: what is shortened, in which order, and what the protocol demands."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.context_window import (
    FILL,
    MAX_CALLS_NAMED,
    RECENT_KEPT,
    SHORTEST_RESULT,
    compact,
    estimate_schemas,
    estimate_tokens,
)
from orchestrator.domain.conversation import Message, Role, ToolCall, ToolSpec

OPENING = [Message(Role.SYSTEM, "Be useful."), Message(Role.USER, "What is in here?")]
NUDGE = Message(Role.USER, "Call a tool, or answer.")
SIZES = st.sampled_from([0, 1, 30, 300, 3_000, 20_000])


def turn(
    number: int, results: Sequence[str], said: str = "", arguments: str = "{}"
) -> list[Message]:
    """An assistant's turn with a call for each of these results."""
    calls = tuple(
        ToolCall(f"call_{number}_{index}", f"tool{number}", arguments)
        for index in range(len(results))
    )
    return [
        Message(Role.ASSISTANT, said, tool_calls=calls),
        *(
            Message(Role.TOOL, text, tool_call_id=call.id, step=number)
            for call, text in zip(calls, results, strict=True)
        ),
    ]


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Conversations as the loop makes them: turns with calls, and empty ones with a nudge."""
    letter = draw(st.sampled_from("aé数"))
    query = Message(Role.USER, letter * draw(SIZES))
    messages = [OPENING[0], query]
    for number in range(draw(st.integers(0, 14))):
        sizes = draw(st.lists(SIZES, max_size=draw(st.sampled_from([1, 2, 12]))))
        if sizes:
            results = [letter * size for size in sizes]
            messages += turn(number, results, letter * draw(SIZES), '{"a": "' + "x" * draw(SIZES))
        else:
            messages += [Message(Role.ASSISTANT), NUDGE]
    return messages


def assert_valid(messages: Sequence[Message]) -> None:
    """Each call has its result in the messages right after it, and each result its call."""
    open_calls: list[str] = []
    for message in messages:
        if message.role is Role.TOOL:
            assert message.tool_call_id in open_calls
            open_calls.remove(message.tool_call_id)
            continue
        assert not open_calls
        open_calls = [call.id for call in message.tool_calls]
    assert not open_calls


def latest_turn(messages: Sequence[Message]) -> list[Message]:
    starts = [index for index, each in enumerate(messages) if each.role is Role.ASSISTANT]
    return list(messages[starts[-1] :]) if starts else []


def least(messages: Sequence[Message]) -> int:
    """Tokens of the shortest form: opening, the note, the latest turn with short results."""
    shortest = [
        Message(each.role, "…" * (SHORTEST_RESULT + 80), tool_call_id=each.tool_call_id)
        if each.role is Role.TOOL and len(each.text) > SHORTEST_RESULT
        else each
        for each in latest_turn(messages)
    ]
    note = Message(Role.USER, "n" * 1_000)
    return estimate_tokens([*messages[:2], note, *shortest])


@given(conversations(), st.integers(0, 60_000), st.integers(0, 2_000))
def test_what_is_left_is_a_valid_conversation_that_fits_if_it_can(
    messages: list[Message], window: int, reserved: int
) -> None:
    before = list(messages)
    fitting = compact(messages, window, reserved)
    room = int(window * FILL) - reserved

    assert messages == before
    assert_valid(fitting)
    assert fitting[:2] == messages[:2]
    kept, full = latest_turn(fitting), latest_turn(messages)
    assert [(each.role, each.tool_calls) for each in kept] == [
        (each.role, each.tool_calls) for each in full
    ]
    assert all(each.text == was.text for each, was in zip(kept, full, strict=True)) or (
        estimate_tokens([*messages[:2], *full]) > room - 400
    )
    assert estimate_tokens(fitting) <= max(estimate_tokens(messages), room)
    if least(messages) <= room:
        assert estimate_tokens(fitting) <= room


@given(conversations(), st.integers(0, 60_000))
def test_what_fits_is_left_alone_and_compacting_twice_is_compacting_once(
    messages: list[Message], window: int
) -> None:
    fitting = compact(messages, window)
    room = int(window * FILL)
    if estimate_tokens(messages) <= room:
        assert fitting == messages
    if estimate_tokens(fitting) <= room:
        assert compact(fitting, window) == fitting


@given(conversations(), st.integers(2_000, 30_000))
def test_a_conversation_that_grows_stays_valid_at_every_step(
    messages: list[Message], window: int
) -> None:
    for end in range(2, len(messages) + 1):
        if end == len(messages) or messages[end].role is not Role.TOOL:
            assert_valid(compact(messages[:end], window))


def test_older_results_go_first_and_only_as_many_as_must() -> None:
    messages = [*OPENING, *(each for n in range(12) for each in turn(n, ["x" * 3_500]))]
    room_for_ten = int(estimate_tokens(messages) / FILL) - 2_500
    fitting = compact(messages, room_for_ten)
    results = [each.text for each in fitting if each.role is Role.TOOL]
    assert len(fitting) == len(messages)
    assert results[0] == (
        "[The result of step 0 was dropped to save room. Call the tool again if needed.]"
    )
    assert "step 1 " in results[1]
    assert results[3:] == ["x" * 3_500] * 9


def test_a_short_result_is_not_replaced_by_a_longer_note() -> None:
    messages = [*OPENING, *turn(0, ["ok"]), *(e for n in range(9) for e in turn(n, ["x" * 3_500]))]
    fitting = compact(messages, 6_000)
    assert fitting[3].text == "ok"
    assert "dropped" in fitting[5].text


def test_older_turns_give_way_to_one_line_that_names_their_calls() -> None:
    messages = [*OPENING, *(e for n in range(40) for e in turn(n, ["y"], said="x" * 700))]
    fitting = compact(messages, 5_000)
    assert_valid(fitting)
    note = fitting[2]
    assert note.role is Role.USER
    dropped = (len(messages) - len(fitting) + 1) // 2
    assert dropped > MAX_CALLS_NAMED
    assert note.text.endswith(f"tool{dropped - 2}, tool{dropped - 1}.]")
    assert note.text.count("tool") == MAX_CALLS_NAMED
    assert fitting[3:] == messages[2 + 2 * dropped :]
    # One turn more would not have fitted.
    assert estimate_tokens([*fitting, *turn(0, ["y"], said="x" * 700)]) > 5_000 * FILL


def test_a_turn_of_many_calls_is_kept_whole() -> None:
    """More results than are counted as recent must not cost the model its latest turn."""
    count = 3 * RECENT_KEPT
    messages = [*OPENING, *turn(0, ["x" * 50_000]), *turn(1, ["y" * 700] * count)]
    fitting = compact(messages, 9_000)
    assert_valid(fitting)
    assert [each.text for each in fitting[-count:]] == ["y" * 700] * count
    # Nor is a part of it dropped before it was read.
    tighter = compact([*OPENING, *turn(1, ["y" * 700] * count)], 4_000)
    assert all(each.text.startswith("yyy") for each in tighter[-count:])


def test_one_huge_result_is_cut_to_what_fits() -> None:
    messages = [*OPENING, *turn(0, ["short"]), *turn(1, ["head" + "x" * 10_000_000 + "tail"])]
    fitting = compact(messages, 4_000)
    assert estimate_tokens(fitting) <= 4_000 * FILL
    assert estimate_tokens(fitting) > 4_000 * FILL / 2
    assert fitting[-1].text.startswith("head")
    assert fitting[-1].text.endswith("tail")
    assert "left out here" in fitting[-1].text


@pytest.mark.parametrize("window", [0, 1, 2_000])
def test_a_query_larger_than_the_window_is_not_cut(window: int) -> None:
    messages = [OPENING[0], Message(Role.USER, "q" * 1_000_000)]
    assert compact(messages, window) == messages
    longer = [*messages, *turn(0, ["r" * 100_000]), *turn(1, ["r" * 100_000])]
    fitting = compact(longer, window)
    assert fitting[:2] == messages
    assert estimate_tokens(fitting[2:]) < 300
    assert_valid(fitting)


def test_tools_that_fill_the_window_leave_opening_and_latest_turn() -> None:
    messages = [*OPENING, *(each for n in range(5) for each in turn(n, ["y"]))]
    fitting = compact(messages, 2_000, reserved=5_000)
    assert [each.role for each in fitting] == ["system", "user", "user", "assistant", "tool"]


def test_other_scripts_take_more_tokens_a_character() -> None:
    latin, chinese = (estimate_tokens([Message(Role.USER, c * 1_000)]) for c in "a数")
    assert 250 < latin < 350
    assert 800 < chinese < 1_100
    assert estimate_tokens([Message(Role.USER, "\ud800")]) > 0


def test_schemas_are_counted_with_names_and_descriptions() -> None:
    tools = [ToolSpec("n" * 350, "d" * 350, "p" * 350)] * 2
    assert estimate_schemas(tools) == 600
