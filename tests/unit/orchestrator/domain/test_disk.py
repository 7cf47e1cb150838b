"""What is done about a workspace that holds much, and when it is measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.disk import (
    DiskLook,
    DiskRecord,
    DiskUse,
    DiskVerdict,
    decide_disk,
    disk_sentence,
    is_due,
)

LIMIT = 800
MIB = 2**20


def verdicts(*uses: int | None) -> list[str]:
    """What is decided about uses that follow each other; None cannot be measured whole."""
    record, said = DiskRecord(), []
    for used in uses:
        use = DiskUse(used or 0, 0.1, whole=used is not None)
        verdict, record = decide_disk(record, use, LIMIT)
        said.append(verdict.value)
    return said


@pytest.mark.parametrize(
    ("uses", "expected"),
    [
        ((0, 800, 799), "within within within"),
        ((10, 801), "within interrupt"),
        ((10, 900, 1000, 1000), "within interrupt bear bear"),
        ((10, 900, 1001), "within interrupt interrupt"),
        ((10, 900, 1001, 1102), "within interrupt interrupt stop"),
        # What is borne sinks with the use, so that what was deleted is not filled again.
        ((10, 900, 850, 950, 951), "within interrupt bear bear interrupt"),
        ((10, 900, 1001, 10, 900), "within interrupt interrupt within interrupt"),
        ((5000,), "tell"),
        ((5000, 5100, 5101), "tell bear interrupt"),
        ((5000, 4000, 700, 801), "tell bear within interrupt"),
        ((None, None, None), "interrupt interrupt stop"),
        ((10, None, 10), "within interrupt within"),
    ],
)
def test_verdicts(uses: tuple[int | None, ...], expected: str) -> None:
    assert verdicts(*uses) == expected.split()


@given(st.lists(st.integers(0, 10 * LIMIT), min_size=1))
def test_what_only_shrinks_is_never_ended(uses: list[int]) -> None:
    shrinking = sorted(uses, reverse=True)
    assert not {"interrupt", "stop"} & set(verdicts(*shrinking))


@given(st.lists(st.integers(LIMIT // 8 + 1, LIMIT), min_size=3, max_size=3))
def test_what_goes_on_growing_is_stopped(steps: list[int]) -> None:
    uses = [0, *(LIMIT + sum(steps[:number]) for number in (1, 2, 3))]
    assert verdicts(*uses)[-1] == DiskVerdict.STOP


def look(room: int = 100, seconds: float = 0.0, free: int | None = 1000) -> DiskLook:
    return DiskLook(50.0, seconds, room, free)


@pytest.mark.parametrize(
    ("before", "since", "free", "expected"),
    [
        (look(), 9.9, 1000, False),
        (look(), 10.0, 1000, True),
        (look(seconds=2.0), 49.0, 1000, False),
        (look(seconds=2.0), 50.0, 1000, True),
        # The file system has lost what the workspace had left, or not quite.
        (look(), 1.0, 899, True),
        (look(), 1.0, 900, False),
        (look(), 0.9, 899, False),
        (look(seconds=2.0), 19.0, 0, False),
        (look(seconds=2.0), 20.0, 0, True),
        # Above the limit it is measured often.
        (look(room=-1), 1.0, 1000, True),
        (look(room=-1, seconds=2.0), 19.0, 1000, False),
        # A file system that we cannot see.
        (look(free=None), 9.0, 0, False),
        (look(), 9.0, None, False),
    ],
)
def test_when_it_is_measured(
    before: DiskLook, since: float, free: int | None, expected: bool
) -> None:
    assert is_due(before, before.at + since, free) is expected


def test_many_containers_share_what_measuring_may_take() -> None:
    before = look(seconds=2.0)
    assert not is_due(before, before.at + 499.0, 1000, containers=10)
    assert is_due(before, before.at + 500.0, 1000, containers=10)
    assert is_due(before, before.at + 20.0, 0, containers=10)


def test_the_sentence_names_use_limit_and_what_to_do() -> None:
    use = DiskUse(96 * MIB + MIB // 2, 0.1)
    said = disk_sentence("repo-1", DiskVerdict.INTERRUPT, use, 2**31)
    for part in ("96.5 MiB", "2.0 GiB", "were ended", "Delete", "/containers/repo-1", "disk_bytes"):
        assert part in said
    assert "stopped" in disk_sentence("repo-1", DiskVerdict.STOP, use, 2**30)
    assert "too deep" in disk_sentence("r", DiskVerdict.TELL, DiskUse(1, 0.1, whole=False), 2**30)
