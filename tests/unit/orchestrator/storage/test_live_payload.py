"""Any text fits into notifications and comes out of them as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.live_text import LiveText, TextDelta, joined
from orchestrator.storage.postgres.live_payload import MAX_PAYLOAD_BYTES, payloads, read_payload

TEXT = st.one_of(
    st.text(st.characters(), max_size=50),
    # What is longest on its way: 6 bytes for a control character, 12 for one beyond the BMP.
    st.integers(0, 9_000).map(lambda count: "\x00" * count),
    st.integers(0, 9_000).map(lambda count: "\U0001f30d" * count),
    st.integers(7_900, 8_000).map(lambda count: "x" * count),
)


def piece(text: str, offset: int = 0, *, attempt: str = "a", step: int = 1) -> LiveText:
    return LiveText("t" * 32, step, TextDelta(attempt, offset, text))


@given(TEXT, st.integers(0, 10**9))
def test_a_piece_goes_through_whole(text: str, offset: int) -> None:
    sent = piece(text, offset)
    parts = list(payloads(sent))
    assert all(len(part.encode()) <= MAX_PAYLOAD_BYTES for part in parts)
    assert joined(map(read_payload, parts)) == [sent]


@pytest.mark.parametrize("payload", ["", "5", "[]", "{}", "[1,2]", "t1:7", "[1,2,3,4,5,6]"])
def test_what_is_no_payload_is_refused(payload: str) -> None:
    with pytest.raises(ValueError, match=r"live text|JSON|Expecting|Extra"):
        read_payload(payload)


def test_only_what_continues_is_joined() -> None:
    pieces = [
        piece("ab"),
        piece("cd", 2),
        piece("ef", 5),  # one was lost before
        piece("gh", 0, attempt="b"),
        piece("ij", 2, attempt="b", step=2),
    ]
    assert [each.delta.text for each in joined(pieces)] == ["abcd", "ef", "gh", "ij"]


def test_characters_count_not_bytes() -> None:
    assert joined([piece("ä🌍"), piece("x", 2)]) == [piece("ä🌍x")]
