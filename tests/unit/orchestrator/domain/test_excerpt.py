"""Excerpts: the limit holds, and head and tail are the text's own."""

import re

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.excerpt import excerpt

# A note that no text of the tests holds, so that head and tail can be told from it.
NOTE = "the whole is in NOTE.txt"
TEXTS = st.text(alphabet="ab\n …[]é\U0001f600", max_size=400)
MARK = re.compile(r"\n\[… (?P<left>[\d,]+) of (?P<all>[\d,]+) characters left out here; ")


def halves(cut: str) -> tuple[str, str]:
    found = MARK.search(cut)
    assert found is not None
    return cut[: found.start()], cut[found.end() :].removeprefix(f"{NOTE} …]\n")


@given(TEXTS, st.integers(0, 500))
def test_short_text_stays_and_long_text_keeps_exactly_the_limit(text: str, limit: int) -> None:
    cut = excerpt(text, limit, NOTE)
    if len(text) <= limit:
        assert cut == text
        return
    head, tail = halves(cut)
    assert len(head) + len(tail) == limit
    assert text.startswith(head)
    assert text.endswith(tail)
    assert cut.count(NOTE) == 1


@given(TEXTS.filter(lambda text: len(text) > 20), st.integers(2, 20))
def test_the_note_counts_what_is_missing(text: str, limit: int) -> None:
    found = MARK.search(excerpt(text, limit, NOTE))
    if len(text) > limit:
        assert found is not None
        assert int(found["left"]) == len(text) - limit
        assert int(found["all"]) == len(text)


def test_both_the_start_and_the_end_of_an_output_can_be_read() -> None:
    log = "first line\n" + "x" * 100_000 + "\nlast line: FAILED"
    cut = excerpt(log, 1_000, NOTE)
    assert cut.startswith("first line\n")
    assert cut.endswith("last line: FAILED")
    assert len(cut) < 1_200
    assert "99,029 of 100,029 characters" in cut
