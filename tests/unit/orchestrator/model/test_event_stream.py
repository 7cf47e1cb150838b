"""Events are found however the bytes were split on their way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.event_stream import EventStream, EventTooLarge

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
OTHER_LINES = st.sampled_from([":", ": still here", "event: x", "id", "retry: 5", "database: no"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    """A stream's bytes, and the data of its events."""
    stream, events = draw(st.sampled_from(["", "\ufeff"])), []
    for data in draw(st.lists(st.lists(TEXT, max_size=3), max_size=4)):
        end = draw(LINE_ENDS)
        lines = [f"data:{draw(st.sampled_from(['', ' ']))}{_said(line)}" for line in data]
        for other in draw(st.lists(OTHER_LINES, max_size=2)):
            lines.insert(draw(st.integers(0, len(lines))), other)
        stream += "".join(line + end for line in [*lines, ""])
        if data:
            events.append("\n".join(map(_said, data)))
    return stream.encode(), events


def _said(line: str) -> str:
    # One space after the colon is not part of the value.
    return line.lstrip(" ")


@st.composite
def split_streams(draw: st.DrawFn) -> tuple[list[bytes], list[str]]:
    """A stream in chunks, and the data of its events."""
    stream, events = draw(streams())
    cuts = sorted(draw(st.sets(st.integers(0, len(stream)), max_size=12)))
    bounds = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    return [stream[start:end] for start, end in bounds], events


@given(split_streams())
def test_any_split_gives_the_same_events(case: tuple[list[bytes], list[str]]) -> None:
    chunks, events = case
    parser = EventStream(10_000)
    assert [event for chunk in chunks for event in parser.feed(chunk)] == events


@given(streams())
def test_byte_by_byte_gives_the_same_events(case: tuple[bytes, list[str]]) -> None:
    stream, events = case
    parser = EventStream(10_000)
    assert [event for byte in stream for event in parser.feed(bytes([byte]))] == events


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_taken(chunks: list[bytes]) -> None:
    parser = EventStream(10_000)
    assert all(isinstance(event, str) for chunk in chunks for event in parser.feed(chunk))


def test_an_event_without_its_blank_line_is_none() -> None:
    assert EventStream(100).feed(b"data: a\n") == []


def test_a_field_without_a_colon_has_an_empty_value() -> None:
    assert EventStream(100).feed(b"data\n\n") == [""]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert EventStream(100).feed(b"data: a\xffb\n\n") == ["a\ufffdb"]


@pytest.mark.parametrize("piece", [b"x", b"data: xxxxxxxxxx\n", b"data:\n", b"data: \xc3\xa4\n"])
def test_an_event_without_end_is_refused(piece: bytes) -> None:
    parser = EventStream(100)
    with pytest.raises(EventTooLarge):
        _feed_many(parser, piece)


def _feed_many(parser: EventStream, piece: bytes) -> None:
    for _ in range(200):
        parser.feed(piece)


def test_many_events_together_may_be_larger_than_one() -> None:
    parser = EventStream(20)
    for _ in range(100):
        assert parser.feed(b": some comment\ndata: x\n\n") == ["x"]
