"""Who is dead, and who may take over."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.fleet import Steadiness, dead_owners, lapse, lost_leases

LAPSE = 6.0
IDS = st.frozensets(st.sampled_from("abcdef"))
LEASES = st.dictionaries(st.sampled_from("uvwxyz"), st.integers(1, 4))


def test_two_heartbeats_may_be_missing() -> None:
    assert 2 * 2.0 < lapse(2.0) < 3 * 2.0


@pytest.mark.parametrize(
    ("beats", "now", "may"),
    [
        ([], 100.0, False),
        ([0.0], 0.0, False),
        ([0.0, 2.0, 4.0], 5.0, False),
        ([0.0, 2.0, 4.0, 6.0], 6.0, True),
        ([0.0, 2.0, 4.0, 6.0], 11.9, True),
        # Silent itself: the database is away, or the process was stopped.
        ([0.0, 2.0, 4.0, 6.0], 12.0, False),
        ([0.0, 2.0, 4.0, 6.0, 20.0], 20.0, False),
        ([0.0, 2.0, 4.0, 6.0, 20.0, 22.0, 24.0, 26.0], 26.0, True),
    ],
)
def test_only_who_was_heard_for_long_enough_may_judge(
    beats: list[float], now: float, may: bool
) -> None:
    steadiness = Steadiness(LAPSE)
    for beat in beats:
        steadiness.heard(beat)
    assert steadiness.may_judge(now) is may


@given(st.lists(st.floats(0.0, 30.0)), st.floats(0.0, 40.0))
def test_who_judges_had_no_gap_as_long_as_a_death(gaps: list[float], wait: float) -> None:
    steadiness, beats = Steadiness(LAPSE), [0.0]
    for gap in gaps:
        beats.append(beats[-1] + gap)
    for beat in beats:
        steadiness.heard(beat)
    now = beats[-1] + wait
    if not steadiness.may_judge(now):
        return
    recent = [beat for beat in beats if beat > now - LAPSE]
    assert recent
    assert all(later - earlier < LAPSE for earlier, later in pairwise(recent))


@given(IDS, IDS, st.sampled_from("abcdef"))
def test_dead_are_those_with_tasks_that_nobody_knows(
    owners: frozenset[str], known: frozenset[str], own: str
) -> None:
    dead = dead_owners(owners, known, own)
    assert own not in dead
    assert dead <= owners
    assert not dead & known
    assert owners - dead <= known | {own}


@given(LEASES, LEASES)
def test_lost_is_what_the_database_does_not_confirm(
    believed: dict[str, int], told: dict[str, int]
) -> None:
    lost = lost_leases(believed, told)
    assert lost.items() <= believed.items()
    assert not lost.items() & told.items()
    assert (believed.items() - lost.items()) <= told.items()
