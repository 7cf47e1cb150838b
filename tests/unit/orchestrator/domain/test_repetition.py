"""Repetition: circles are counted, honest work is not."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.repetition import LONGEST_CYCLE, CallSeen, repeats


def seen(letters: str) -> list[CallSeen]:
    return [CallSeen("tool", letter, letter) for letter in letters]


def naive(history: str) -> int:
    """The longest run of one cycle at the end of the history, by trying all of them."""
    return max(
        count
        for length in range(1, LONGEST_CYCLE + 1)
        for count in range(1, len(history) + 2)
        if count == 1 or history.endswith(history[-length:] * count)
    )


@given(st.text(alphabet="abc", max_size=24))
def test_it_agrees_with_trying_every_cycle(letters: str) -> None:
    assert repeats(seen(letters)) == naive(letters)


@given(st.text(alphabet="abc", min_size=1, max_size=3), st.integers(1, 8))
def test_a_cycle_is_counted_as_often_as_it_was_run(cycle: str, times: int) -> None:
    assert repeats(seen("xyz" + cycle * times)) >= times


@pytest.mark.parametrize(
    ("letters", "count"),
    [
        ("", 1),
        ("a", 1),
        ("ab", 1),
        ("aa", 2),
        ("aaaaa", 5),
        ("abab", 2),
        ("ababab", 3),
        ("abababa", 3),
        ("abcabc", 2),
        ("abcdabcd", 1),
        ("aab", 1),
        ("aaba", 1),
        ("bbbba", 1),
    ],
)
def test_examples(letters: str, count: int) -> None:
    assert repeats(seen(letters)) == count


def calls(*parts: tuple[str, str, str]) -> Sequence[CallSeen]:
    return [CallSeen(*part) for part in parts]


def test_another_result_is_no_repetition() -> None:
    polling = calls(*(("bash", '{"command": "make"}', f"error {n}") for n in range(10)))
    assert repeats(polling) == 1


def test_editing_and_testing_in_turn_is_no_repetition() -> None:
    work = calls(
        *(
            part
            for n in range(10)
            for part in [("edit", f'{{"text": {n}}}', "done"), ("test", "{}", "1 failed")]
        )
    )
    assert max(repeats(work[:end]) for end in range(len(work) + 1)) == 1
