"""Secrets in what comes back, in whatever pieces it comes."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gateway.redaction import Redaction

LONG, SHORT, OTHER = "abcabcabcabd", "abcabcab", "0123456789"


def fed(redaction: Redaction, pieces: list[bytes]) -> bytes:
    return b"".join([*(redaction.feed(piece) for piece in pieces), redaction.rest()])


@given(
    st.lists(st.sampled_from([LONG, OTHER, "abc", "0", "abcabcabcab", "\n"]), max_size=12),
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
)
def test_no_secret_is_left_whatever_the_pieces(words: list[str], sizes: list[int]) -> None:
    text = "".join(words).encode()
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    pieces.append(text[at:])

    told = fed(Redaction([LONG, OTHER]), pieces)

    assert len(told) == len(text)
    assert LONG.encode() not in told
    assert OTHER.encode() not in told
    assert all(new in (old, ord("*")) for new, old in zip(told, text, strict=True))


@given(st.lists(st.binary(max_size=20)))
def test_without_secrets_nothing_changes(pieces: list[bytes]) -> None:
    assert fed(Redaction(), pieces) == b"".join(pieces)


def test_only_what_may_begin_a_secret_is_held_back() -> None:
    redaction = Redaction([OTHER])
    assert redaction.feed(b"data: x\n\n") == b"data: x\n\n"
    assert redaction.feed(b"data: 0123") == b"data: "
    assert redaction.feed(b"x") == b"0123x"


def test_a_secret_that_is_part_of_another() -> None:
    assert fed(Redaction([SHORT, LONG]), [b"<" + LONG.encode() + b">"]) == b"<" + b"*" * 12 + b">"


def test_what_is_too_short_to_be_told_apart_is_left() -> None:
    assert fed(Redaction(["abc"]), [b"abc"]) == b"abc"
