"""What users are told of a tree that lacks something."""

import pytest

from orchestrator.domain.lacking import Lacking

OLD = "a: as at the start or at an earlier step"


@pytest.mark.parametrize(
    ("lacking", "end"),
    [
        (Lacking(("a",)), f"they were: {OLD}."),
        (Lacking((), ("b", "c")), "they were: b, c: missing."),
        (Lacking(("a",), ("b",)), f"they were: {OLD}; b: missing."),
    ],
)
def test_the_paths_are_named(lacking: Lacking, end: str) -> None:
    assert lacking.sentence.endswith(end)


def test_nothing_is_told_of_nothing() -> None:
    assert Lacking().sentence == ""


def test_it_stays_short() -> None:
    lacking = Lacking((), tuple(f"{number}" * 5_000 for number in range(100)))
    assert "and 90 more: missing" in lacking.sentence
    assert len(lacking.sentence) < 3_000
