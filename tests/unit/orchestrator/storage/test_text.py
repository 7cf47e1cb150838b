import json

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from orchestrator.storage.postgres.text import dump_json, storable_json, storable_text

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda children: st.lists(children) | st.dictionaries(ANY_TEXT, children),
    max_leaves=20,
)


def is_storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


@given(ANY_TEXT)
def test_text_becomes_storable_and_keeps_its_length(text: str) -> None:
    result = storable_text(text)
    assert is_storable(result)
    assert len(result) == len(text)
    assert all(b in (a, "\ufffd") for a, b in zip(text, result, strict=True))


@given(st.text())
def test_text_without_such_characters_stays(text: str) -> None:
    assert storable_text(text) == text.replace("\x00", "\ufffd")


@given(ANY_JSON)
def test_json_becomes_what_postgres_reads(value: JsonValue) -> None:
    text = dump_json(value)
    assert is_storable(text)
    assert json.loads(text) == storable_json(value)
    json.dumps(storable_json(value), allow_nan=False)  # raises for what JSON cannot say


def test_examples() -> None:
    assert storable_text("a\x00b\ud83d\ude00c😀") == "a\ufffdb\ufffd\ufffdc😀"
    assert dump_json({"a\x00": float("-inf")}) == '{"a\ufffd":null}'
