"""A call means one thing only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine_proxy.call import read_call, read_object
from orchestrator.errors import EngineCallInvalid, EngineCallRefused, EngineError


def test_a_call_is_read() -> None:
    call = read_call(b"GET", b"/v1.41/containers/repo-1.x/logs?tail=20&follow=0", b"x")
    assert (call.method, call.version) == ("GET", "/v1.41")
    assert call.path == "/containers/repo-1.x/logs"
    assert call.query == {"tail": "20", "follow": "0"}
    assert call.body == b"x"


def test_the_version_may_be_left_out() -> None:
    call = read_call(b"GET", b"/version")
    assert (call.version, call.path, call.query) == ("", "/version", {})


@pytest.mark.parametrize(
    "target",
    [
        "http://docker/version",
        "//version",
        "/containers//json",
        "/containers/../version",
        "/containers/./json",
        "/containers/.../json",
        "/containers/%2e%2e/version",
        "/containers/a%2fb/json",
        "/containers/a%00/json",
        "/containers/a\\b/json",
        "/containers/a;b/json",
        "/containers/json/",
        "/containers/json#x",
        "/version?a=1#x",
        "/containers/json?a=1&a=2",
        "/containers/json?a=1&%61=2",
        "/containers/json?a",
        "/containers/json?a=%ff",
        "/v1.40/version",
        "version",
        "*",
        "",
        "/",
        "?a=1",
    ],
)
def test_what_can_be_read_differently_is_refused(target: str) -> None:
    with pytest.raises(EngineCallRefused):
        read_call(b"GET", target.encode("latin-1"))


def test_a_version_in_another_form_is_part_of_the_path() -> None:
    for target in (
        b"/v1.0/version",
        b"/v1.041/version",
        b"/V1.41/version",
        b"/v2.41/version",
        b"/v1.41/v1.41/info",
    ):
        assert read_call(b"GET", target).path not in {"/version", "/info"}


@given(st.binary(max_size=80))
def test_any_target_is_read_or_refused(target: bytes) -> None:
    try:
        call = read_call(b"GET", b"/" + target)
    except EngineError:
        return
    parts = call.path.split("/")
    assert parts[0] == ""
    assert all(part and part not in {".", ".."} and "%" not in part for part in parts[1:])


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1, "b": 1}}',
        '{"a": 1, "\\u0061": 2}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        "[]",
        '"a"',
        "null",
        "",
        "{",
        '{"a": 1} {"b": 2}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a": ' + "9" * 10_000 + "}",
    ],
)
def test_what_is_not_one_object_is_refused(text: str) -> None:
    with pytest.raises(EngineCallInvalid):
        read_object(text)


def test_bytes_that_are_not_text_are_refused() -> None:
    with pytest.raises(EngineCallInvalid):
        read_object(b'{"a": "\xff"}')
