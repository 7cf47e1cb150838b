"""Tool calls: what is run, what goes back to the model, and schemas that cannot be used."""

import json
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from orchestrator.domain.call_check import MAX_DEPTH, CheckedCall, check_call
from orchestrator.domain.conversation import ToolCall, ToolSpec

OBJECT = '{"type": "object"}'
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"path": {"type": "string"}, "head": {"type": "integer", "minimum": 1}},
        "required": ["path"],
        "additionalProperties": False,
    }
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS.filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYWORDS = st.sampled_from([*Draft202012Validator.VALIDATORS, "$id", "$schema", "$anchor", "a"])
SCHEMAS = st.recursive(
    SCALARS | st.sampled_from(["#", "#/properties/a", "string", "object", "[", "urn:x", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=4),
    max_leaves=10,
)


def check(arguments: str, schema: str = OBJECT, name: str = "read") -> CheckedCall:
    return check_call(ToolCall("call_0_0", name, arguments), [ToolSpec("read", "", schema)])


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_every_json_object_is_read_as_it_is(value: dict[str, object]) -> None:
    checked = check(json.dumps(value))
    assert checked == CheckedCall(value)


@given(st.text(max_size=60))
def test_any_text_is_answered_with_arguments_or_one_short_complaint(text: str) -> None:
    checked = check(text)
    assert bool(checked.complaint) is (checked.arguments == {} and text.strip() not in ("", "{}"))
    assert len(checked.complaint) < 1_200


@pytest.mark.parametrize("nothing", ["", "  \n", "{}"])
def test_no_arguments_are_an_empty_object(nothing: str) -> None:
    assert check(nothing) == CheckedCall({})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{", "property name"),
        ("null", "NoneType"),
        ("[1]", "list"),
        ('"text"', "str"),
        ('{"path": "a"} {"path": "b"}', "Extra data"),
        ('{"path": NaN}', "not JSON compliant"),
        ('{"path": -Infinity}', "not JSON compliant"),
        ('{"path": 1e999}', "not JSON compliant"),
        ('{"path": "a", "path": "b"}', "'path' is given twice"),
        ('{"a": [{"b": 1, "b": 1}]}', "'b' is given twice"),
        ('{"path": "\\ud800"}', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        ('{"n": ' + "1" * 5_000 + "}", "4300 digits"),
        (nested(MAX_DEPTH + 1), "too deeply"),
        ("[" * 100_000, "too deeply"),
        (nested(100_000), "too deeply"),
    ],
)
def test_what_is_no_plain_json_object_goes_back_to_the_model(arguments: str, said: str) -> None:
    checked = check(arguments)
    assert checked.arguments == {}
    assert checked.complaint.startswith("The arguments of read are not a JSON object (")
    assert said in checked.complaint
    assert len(checked.complaint) < 1_000


def test_pairs_of_surrogates_and_some_depth_are_fine() -> None:
    assert check('{"a": "\\ud83d\\ude00"}') == CheckedCall({"a": "\U0001f600"})
    assert not check(nested(MAX_DEPTH - 1)).complaint


def test_an_unknown_tool_is_answered_with_those_there_are() -> None:
    tools = [ToolSpec(name, "", OBJECT) for name in ("write", "bash")]
    checked = check_call(ToolCall("1", "shell", "{"), tools)
    assert checked.complaint == "There is no tool 'shell'. The tools are: bash, write."
    long = check_call(ToolCall("1", "x" * 100_000, "{}"), tools)
    assert len(long.complaint) < 300


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "'path' is a required property"),
        ({"path": 5}, "at 'path': 5 is not of type 'string'"),
        ({"path": "a", "head": 0}, "at 'head': 0 is less than the minimum of 1"),
        ({"path": "a", "tail": 1}, "'tail' was unexpected"),
        ({"path": ["x" * 100_000]}, "at 'path'"),
        ({"k" * 100_000: 1, "path": "a"}, "do not fit"),
    ],
)
def test_arguments_that_do_not_fit_are_told_where(arguments: dict[str, object], said: str) -> None:
    checked = check(json.dumps(arguments), SCHEMA)
    assert checked.arguments == {}
    assert said in checked.complaint
    assert len(checked.complaint) < 600


def test_the_place_of_a_misfit_may_be_deep_and_long() -> None:
    schema = json.dumps({"additionalProperties": {"items": {"type": "string"}}})
    assert "at 'a.1'" in check('{"a": ["x", 2]}', schema).complaint
    assert len(check(json.dumps({"k" * 100_000: [1]}), schema).complaint) < 600


@pytest.mark.parametrize(
    "schema",
    [
        "not json",
        "null",
        "3",
        '"text"',
        "[]",
        '{"type": "bogus"}',
        '{"type": 3}',
        '{"properties": 3}',
        '{"required": "path"}',
        '{"$schema": 5}',
        '{"$ref": 5}',
        '{"$ref": "#"}',
        '{"$ref": "#/$defs/none"}',
        '{"$dynamicRef": "#x"}',
        '{"$id": "http://[", "$ref": "a"}',
        '{"properties": {"path": {"pattern": "["}}}',
        '{"patternProperties": {"[": {}}}',
        '{"allOf": ' + "[" * 900 + "]" * 900 + "}",
    ],
)
def test_a_schema_that_cannot_be_used_leaves_the_judgement_to_the_server(schema: str) -> None:
    assert check('{"path": "x"}', schema) == CheckedCall({"path": "x"})


def test_figures_that_a_validator_cannot_divide_do_not_break_it() -> None:
    schema = '{"properties": {"n": {"multipleOf": 0.1}}}'
    assert not check('{"n": ' + "1" * 400 + "}", schema).complaint


@given(SCHEMAS, VALUES)
def test_no_schema_breaks_the_check(schema: object, value: object) -> None:
    text = json.dumps({"properties": {"a": schema}, "$defs": schema, "items": schema})
    checked = check(json.dumps({"a": value}), text)
    assert checked.complaint or checked.arguments == {"a": value}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def test_a_schema_cannot_make_us_fetch_anything(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    schema = json.dumps({"$ref": f"http://127.0.0.1:{port}/schema.json"})
    assert not check('{"path": "x"}', schema).complaint
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_arguments_too_long_for_a_tool_server_go_back_to_the_model() -> None:
    tool = ToolSpec("write_file", "Write a file.", '{"type": "object"}')
    call = ToolCall("c", "write_file", '{"content": "' + "x" * 1_000_000 + '"}')
    checked = check_call(call, [tool])
    assert "smaller parts" in checked.complaint
    assert len(checked.complaint) < 500
