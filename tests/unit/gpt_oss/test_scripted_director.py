import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_oss.scripted.conversation import ChatRequest
from gpt_oss.scripted.director import HttpError, RawBody, Reply, ScriptMismatch, Speech, direct
from gpt_oss.scripted.play import Play, play_from_yaml

Json = dict[str, Any]


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def system(text: str = "note") -> Json:
    return {"role": "system", "content": text}


def said(text: str) -> Json:
    return {"role": "assistant", "content": text}


def called(*calls: tuple[str, str]) -> Json:
    made = [{"id": id_, "type": "function", "function": {"name": n}} for id_, n in calls]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(text: str, id_: str = "call_0_0") -> Json:
    return {"role": "tool", "content": text, "tool_call_id": id_}


def request(*messages: Json, **more: Any) -> ChatRequest:
    tools = [
        {"type": "function", "function": {"name": n, "parameters": {}}} for n in ("bash", "read")
    ]
    return ChatRequest.model_validate({"messages": list(messages), "tools": tools} | more)


def play(turns: str, when: str = "{always: true}", name: str = "p") -> Play:
    return play_from_yaml(f"name: {name}\nwhen: {when}\nturns:\n{turns}")


def speech(reply: Reply) -> Speech:
    assert isinstance(reply.outcome, Speech)
    return reply.outcome


COUNTING = play("".join(f"  - say: t{turn}\n" for turn in range(40)))


def turn_of(*messages: Json) -> int:
    reply = direct([COUNTING], request(*messages))
    assert speech(reply).text == f"t{reply.position}"
    return reply.position


def test_the_turn_is_the_number_of_replies_since_the_query() -> None:
    assert turn_of(system(), user("go")) == 0
    assert turn_of(system(), user("go"), said("a")) == 1
    assert turn_of(user("go"), said("a"), user("more"), said("b"), system()) == 2


def test_messages_before_the_query_do_not_count() -> None:
    assert turn_of(said("welcome"), system(), user("go")) == 0
    assert turn_of(called(("call_7_0", "bash")), user("go")) == 0


@given(
    replies=st.integers(0, 39),
    notes=st.lists(st.tuples(st.integers(0, 80), st.sampled_from(["user", "system"])), max_size=6),
)
def test_notes_added_anywhere_do_not_change_the_turn(
    replies: int, notes: list[tuple[int, str]]
) -> None:
    messages = [user("go")]
    for turn in range(replies):
        messages += [called((f"other{turn}", "bash")), result("ok", f"other{turn}")]
    for place, role in notes:
        messages.insert(1 + place % len(messages), {"role": role, "content": "note"})
    assert turn_of(*messages) == replies


@given(replies=st.integers(1, 39), data=st.data())
def test_dropped_messages_do_not_change_the_turn(replies: int, data: st.DataObject) -> None:
    messages: list[Json] = []
    for turn in range(replies):
        messages += [called((f"call_{turn}_0", "bash")), result("ok", f"call_{turn}_0")]
    kept = messages[2 * data.draw(st.integers(0, replies - 1)) :]
    assert turn_of(user("go"), said("summary of the rest"), *kept) == replies


def test_the_first_user_message_chooses_the_play() -> None:
    plays = [
        play("  - say: files", "{words: [list]}", "list"),
        play("  - say: first\n  - say: second", "{words: [write]}", "write"),
        play("  - {say: unknown, repeat: 1}", name="rest"),
    ]
    assert direct(plays, request(user("list"))).play == "list"
    assert direct(plays, request(user("what?"))).play == "rest"
    during = [user("write"), called(("call_0_0", "bash")), result("ok"), user("list")]
    assert direct(plays, request(*during)).play == "write"


def test_a_query_after_an_answer_starts_its_own_play() -> None:
    plays = [
        play("  - say: files", "{words: [list]}", "list"),
        play("  - say: which?\n  - say: thanks", "{words: [write]}", "write"),
        play("  - say: unknown", name="rest"),
    ]
    follow_up = direct(plays, request(user("write"), said("which?"), user("list")))
    assert (follow_up.play, follow_up.position) == ("list", 0)
    answered = direct(plays, request(user("write"), said("which?"), user("any")))
    assert (answered.play, answered.position) == ("write", 1)


def test_calls_have_ids_by_turn_and_filled_arguments() -> None:
    script = play("""
  - calls: [{tool: bash, arguments: {command: ls}}]
  - calls:
      - {tool: read, arguments: {path: '{{ tool[0] | first 1 }}', head: '{{ tool[0] | count }}'}}
      - {tool: bash, arguments: {argv: [cat, '{{ query }}', 3, null, true]}}
      - {tool: bash}
      - {tool: bash, raw_arguments: '{"command": {{'}
""")
    reply = speech(
        direct([script], request(user("x"), called(("call_0_0", "bash")), result("a\nb")))
    )
    assert [call.id for call in reply.calls] == ["call_1_0", "call_1_1", "call_1_2", "call_1_3"]
    assert [call.name for call in reply.calls] == ["read", "bash", "bash", "bash"]
    assert json.loads(reply.calls[0].arguments) == {"path": "a", "head": 2}
    assert json.loads(reply.calls[1].arguments) == {"argv": ["cat", "x", 3, None, True]}
    assert reply.calls[2].arguments == "{}"
    assert reply.calls[3].arguments == '{"command": {{'
    assert reply.finish_reason == "tool_calls"


def test_ids_stay_unique_when_a_turn_repeats() -> None:
    script = play("  - {calls: [{tool: bash}], repeat: forever}")
    messages = [user("x")]
    ids = []
    for _ in range(3):
        reply = speech(direct([script], request(*messages)))
        ids.append(reply.calls[0].id)
        messages += [called((ids[-1], "bash")), result("same", ids[-1])]
    assert ids == ["call_0_0", "call_1_0", "call_2_0"]


def test_captures_reach_later_turns_and_see_only_what_was_there() -> None:
    script = play("""
  - capture: [{from: query, pattern: 'function (?P<name>\\w+)'}]
    calls: [{tool: bash}]
  - capture: [{pattern: 'n=(?P<n>\\d+)(?P<unit>kg)?'}]
    calls: [{tool: bash}]
  - say: '{{ capture.name }} {{ capture.n }}[{{ capture.unit }}] {{ tool[-1] }}'
""")
    messages = [
        user("a function slug please"),
        called(("call_0_0", "bash")),
        result("n=1"),
        called(("call_1_0", "bash")),
        result("n=2"),
    ]
    assert speech(direct([script], request(*messages))).text == "slug 1[] n=2"
    # With the first round dropped its capture is gone, and asking for it is an error.
    with pytest.raises(ScriptMismatch, match="no capture named 'n'"):
        direct([script], request(messages[0], *messages[3:]))


def test_a_capture_that_is_not_found_is_a_mismatch() -> None:
    script = play("  - {capture: [{from: query, pattern: '(?P<n>\\d+)'}], say: hi}")
    with pytest.raises(ScriptMismatch, match="is not found in query"):
        direct([script], request(user("no number")))


def test_choose_takes_the_first_alternative_that_fits() -> None:
    script = play("""
  - calls: [{tool: bash}]
  - choose:
      - {when_tool_matches: '^exit code: 0$', when_query_matches: please, say: polite}
      - {when_tool_matches: '^exit code: 0$', say: passed}
      - {say: failed}
""")

    def answer(query: str, code: int) -> str | None:
        output = result(f"exit code: {code}\nstdout:\n")
        return speech(direct([script], request(user(query), called(), output))).text

    assert answer("PLEASE", 0) == "polite"
    assert answer("run", 0) == "passed"
    assert answer("please", 1) == "failed"


def test_no_alternative_that_fits_is_a_mismatch() -> None:
    script = play("  - choose: [{when_tool_matches: OK, say: a}]")
    with pytest.raises(ScriptMismatch, match=r"(?s)fits one of: 'OK'.*no tool results"):
        direct([script], request(user("x")))


EXPECTING = [
    ("tools_offered: [read, bash]", "tools_offered: [bash, fly]", "+  - read"),
    ("tools_not_offered: [fly]", "tools_not_offered: [bash]", "-tools_not_offered: none of"),
    ("last_role: tool", "last_role: user", "+last_role: tool"),
    ("last_contains: 'code: 0'", "last_contains: nope", "+  | exit code: 0"),
    ("last_matches: '^exit.*0$'", "last_matches: '^code'", "+  | exit code: 0"),
    ("last_tool_name: bash", "last_tool_name: read", "+last_tool_name: bash"),
    ("last_tool_contains: done", "last_tool_contains: gone", "-last_tool_contains: contains gone"),
    ("last_tool_matches: 'done$'", "last_tool_matches: '^one'", "-last_tool_matches: matches ^one"),
    ("tool_results: 1", "tool_results: 2", "+tool_results: 1"),
    ("message_count: 4", "message_count: 3", "+message_count: 4"),
    ("max_message_count: 4", "max_message_count: 3", "-max_message_count: at most 3"),
    ("system_contains: careful", "system_contains: bold", "+system_contains: be careful"),
    ("stream: false", "stream: true", "+stream: False"),
    ("model: m", "model: n", "+model: m"),
]


@pytest.mark.parametrize(("right", "wrong", "line"), EXPECTING)
def test_each_expectation_holds_or_shows_a_diff(right: str, wrong: str, line: str) -> None:
    messages = [system("be careful"), user("go"), called(("call_0_0", "bash"))]
    messages.append(result("exit code: 0\ndone"))
    asked = request(*messages, model="m")

    def played(expect: str) -> Reply:
        return direct([play(f"  - say: a\n  - {{say: b, expect: {{{expect}}}}}")], asked)

    assert speech(played(right)).text == "b"
    with pytest.raises(ScriptMismatch, match="play 'p', turn 1 expects") as caught:
        played(wrong)
    diff = str(caught.value).split("\n")[1:]
    assert diff[:2] == ["--- expected", "+++ got"]
    assert line in diff


def test_the_diff_keeps_what_holds_as_context_and_cuts_long_texts() -> None:
    script = play("  - {say: a, expect: {last_role: user, last_contains: zzz}}")
    with pytest.raises(ScriptMismatch) as caught:
        direct([script], request(user("y" * 50_000)))
    assert " last_role: user" in str(caught.value).split("\n")
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([user("x"), said("a"), user("y")], r"(?s)Play 'p' is over.*\+last message: user"),
        ([system()], r"(?s)no user message.*\+system"),
    ],
)
def test_a_conversation_without_a_reply_is_a_mismatch(messages: list[Json], complaint: str) -> None:
    with pytest.raises(ScriptMismatch, match=complaint):
        direct([play("  - say: a")], request(*messages))


def test_a_query_that_no_play_fits_is_a_mismatch() -> None:
    with pytest.raises(ScriptMismatch, match=r"(?s)No play fits.*-a query for p.*\+fly"):
        direct([play("  - say: a", "{words: [list]}")], request(user("fly")))


def test_a_missing_tool_result_is_a_mismatch_that_shows_the_results() -> None:
    script = play("  - {say: a}\n  - {say: '{{ tool[1] }}'}")
    with pytest.raises(ScriptMismatch, match=r"(?s)-tool\[1\] is missing.*\+tool\[0\]:\n\+only"):
        direct([script], request(user("x"), called(), result("only")))


def test_usage_is_estimated_unless_given() -> None:
    plain = speech(direct([play("  - say: '12345678'")], request(user("x" * 400), tools=[])))
    assert (plain.prompt_tokens, plain.completion_tokens) == (100, 2)
    with_tools = speech(direct([play("  - say: a")], request(user("x" * 400))))
    assert with_tools.prompt_tokens > 100
    given_ = play("  - {say: a, usage: {prompt_tokens: 90000}}")
    half = speech(direct([given_], request(user("x"))))
    assert (half.prompt_tokens, half.completion_tokens) == (90_000, 1)


def test_faults_and_other_knobs() -> None:
    script = play("""
  - {status: 503, body: {error: busy}, headers: {retry-after: '1'}, delay_seconds: 0.5}
  - {raw: '<html> {{'}
  - {empty: true}
  - {say: partial, drop_connection: true, finish_reason: length, reasoning: 'on {{ query }}'}
  - {drop_connection: true}
""")
    messages = [user("x")]
    replies = []
    for _ in range(5):
        replies.append(direct([script], request(*messages)))
        messages.append(said(""))
    assert replies[0].outcome == HttpError(503, {"error": "busy"}, {"retry-after": "1"})
    assert replies[0].delay_seconds == 0.5
    assert replies[1].outcome == RawBody("<html> {{")
    assert speech(replies[2]).text is None
    assert speech(replies[2]).calls == ()
    assert speech(replies[2]).finish_reason == "stop"
    cut = speech(replies[3])
    assert (cut.text, cut.cut, cut.finish_reason, cut.reasoning) == (
        "partial",
        True,
        "length",
        "on x",
    )
    assert speech(replies[4]).cut


def test_content_may_come_in_parts() -> None:
    parts = [{"type": "text", "text": "li"}, {"type": "image_url"}, {"type": "text", "text": "st"}]
    script = play("  - say: '{{ query }}'", "{words: [list]}")
    assert speech(direct([script], request({"role": "user", "content": parts}))).text == "list"
