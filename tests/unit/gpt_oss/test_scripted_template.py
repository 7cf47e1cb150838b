import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_oss.scripted.template import Context, parse, parse_expression
from gpt_oss.scripted.value import TemplateError, as_lines, section

BASH = "exit code: 3\nstdout:\none\ntwo\n\nstderr:\nwarning: x\nfailed\n"


def fill(text: str, *results: str, query: str = "", **captures: str) -> str:
    return parse(text).fill(Context(query, results, captures, examples=["List", "Write"]))


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("no expression", "no expression"),
        ("{{ query }}", "ask"),
        ("{{query}}!{{ query }}", "ask!ask"),
        ("{{ tool[0] }}", "a\nb\n"),
        ("{{ tool[0].text }}", "a\nb\n"),
        ("{{ tool[0].lines }}", "a\nb"),
        ("{{ tool[0].lines | count }}", "2"),
        ("{{ tool[0] | count }}", "2"),
        ("{{ tool[-1].exit_code }}", "3"),
        ("{{ tool[1].stdout }}", "one\ntwo\n"),
        ("{{ tool[1].stderr | trim }}", "warning: x\nfailed"),
        ("{{ tool[1].lines | first 2 }}", "exit code: 3\nstdout:"),
        ("{{ tool[1].stdout | last 1 }}", "two"),
        ("{{ tool[1].stdout | last 0 }}", ""),
        ('{{ tool[1].lines | matching "^w|^o" | join ", " }}', "one, warning: x"),
        ('{{ tool[1].stdout | excluding "^o" | prefix "- " }}', "- two"),
        ('{{ tool[1].text | extract "exit code: (\\d+)" }}', "3"),
        ('{{ tool[1].text | extract "\\d+" | int }}', "3"),
        ('{{ tool[0] | extract "z" | default "none" }}', "none"),
        ("{{ capture.name }}", "slug"),
        ("{{ examples | count }}", "2"),
        ('{{ "{{" }} }}', "{{ }}"),
        ('{{ "say \\"hi\\" | x" }}', 'say "hi" | x'),
        ("{{ query | fence }}", "```\nask\n```"),
        ('{{ "a```b" | fence }}', "````\na```b\n````"),
    ],
)
def test_fills(text: str, filled: str) -> None:
    assert fill(text, "a\nb\n", BASH, query="ask", name="slug") == filled


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{{ nothing }}", "unknown source 'nothing'"),
        ("{{ tool[x] }}", "unknown source"),
        ("{{ tool[0].size }}", "unknown field 'size'"),
        ("{{ query | shout }}", "unknown filter"),
        ("{{ query | first }}", "unknown filter or wrong argument"),
        ('{{ query | first "2" }}', "unknown filter or wrong argument"),
        ("{{ query | count 2 }}", "unknown filter or wrong argument"),
        ("{{ query | }}", "not a filter"),
        ('{{ query | matching "(" }}', "bad regular expression"),
        ("{{ query", "never closed"),
        ('{{ query | join ", }}', "never closed"),
        ("{{ }}", "unknown source ''"),
    ],
)
def test_parse_refuses(text: str, complaint: str) -> None:
    with pytest.raises(TemplateError, match=complaint.replace("(", r"\(")):
        parse(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{{ tool[2] }}", r"tool\[2\] is missing: 2 tool results"),
        ("{{ tool[-3] }}", r"tool\[-3\] is missing"),
        ("{{ capture.other }}", r"no capture named 'other' so far \(captures: name\)"),
        ("{{ tool[0].exit_code }}", "no line 'exit code"),
        ("{{ tool[0] | int }}", "not a number"),
    ],
)
def test_filling_refuses_what_the_conversation_lacks(text: str, complaint: str) -> None:
    with pytest.raises(TemplateError, match=complaint):
        fill(text, "a", BASH, name="slug")


def test_a_lone_number_stays_a_number() -> None:
    context = Context(results=["a\nb"])
    assert parse("{{ tool[0] | count }}").fill_value(context) == 2
    assert parse("{{ tool[0] | count }} lines").fill_value(context) == "2 lines"
    assert parse("{{ tool[0] }}").fill_value(context) == "a\nb"


def test_a_section_of_output_that_prints_a_heading_itself() -> None:
    result = "exit code: 0\nstdout:\nstderr:\nmine\nstderr:\nreal"
    assert section("stdout", result) == "stderr:\nmine"
    assert section("stderr", result) == "real"
    assert section("stdout", "no sections") == ""
    assert section("stderr", "exit code: 0\nstdout:\nx") == ""


@given(st.text())
def test_results_are_never_read_as_templates(result: str) -> None:
    assert fill("<{{ tool[0] }}>", result) == f"<{result}>"
    assert fill("{{ tool[0] }}", "{{ query }}", query="secret") == "{{ query }}"


@given(st.text(alphabet='{}|"\\ \n[]().' + "toolqueryfirst0-1" + string.ascii_letters))
def test_any_text_either_parses_or_is_refused(text: str) -> None:
    try:
        template = parse(text)
    except TemplateError:
        return
    try:
        assert isinstance(template.fill(Context("q", ["r"])), str)
    except TemplateError:
        return


@given(st.text(alphabet=st.characters(exclude_characters="{")))
def test_text_without_braces_is_itself(text: str) -> None:
    assert fill(text) == text


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n")), max_size=8))
def test_first_and_last_share_out_the_lines(lines: list[str]) -> None:
    context = Context(results=["\n".join(lines)])
    whole = as_lines(context.results[0])
    for cut in range(len(whole) + 1):
        first = parse_expression(f"tool[0] | first {cut}").evaluate(context)
        last = parse_expression(f"tool[0] | last {len(whole) - cut}").evaluate(context)
        assert (*as_lines(first), *as_lines(last)) == whole
