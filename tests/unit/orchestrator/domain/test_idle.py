"""Idle containers: every combination of state, age, limits and permission."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.container import ContainerState
from orchestrator.domain.idle import IdleAction, IdleLimits, decide_idle

LIMITS = IdleLimits(pause_seconds=10, stop_seconds=100, remove_seconds=1_000)
STATES = list(ContainerState)
TIMES = st.integers(0, 10_000).map(float)
RUNNING, PAUSED, STOPPED, BROKEN = STATES


def decided(
    state: ContainerState,
    seconds: float,
    limits: IdleLimits = LIMITS,
    *,
    in_use: bool = False,
    may_remove: bool = True,
) -> IdleAction:
    return decide_idle(state, seconds, limits, in_use=in_use, may_remove=may_remove)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "leave leave leave leave"),
        (9.9, "leave leave leave leave"),
        (10, "pause leave leave leave"),
        (99.9, "pause leave leave leave"),
        (100, "stop stop leave leave"),
        (999.9, "stop stop leave leave"),
        (1_000, "remove remove remove remove"),
    ],
)
def test_what_is_due_in_each_state(seconds: float, expected: str) -> None:
    assert " ".join(decided(state, seconds) for state in STATES) == expected


@pytest.mark.parametrize(("state", "seconds"), list(product(STATES, [0, 10, 100, 1_000, 10**9])))
def test_nothing_is_done_to_what_is_in_use(state: ContainerState, seconds: float) -> None:
    assert decided(state, seconds, in_use=True) is IdleAction.LEAVE


@pytest.mark.parametrize("state", STATES)
def test_work_that_is_kept_nowhere_else_is_never_removed(state: ContainerState) -> None:
    expected = IdleAction.STOP if state in {RUNNING, PAUSED} else IdleAction.LEAVE
    assert decided(state, 10**9, may_remove=False) is expected


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (IdleLimits(0, 0, 0), "leave leave leave leave"),
        (IdleLimits(10, 0, 0), "pause leave leave leave"),
        (IdleLimits(0, 10, 0), "stop stop leave leave"),
        (IdleLimits(0, 0, 10), "remove remove remove remove"),
        (IdleLimits(10, 0, 10**6), "pause leave leave leave"),
    ],
)
def test_a_limit_of_zero_is_none(limits: IdleLimits, expected: str) -> None:
    assert " ".join(decided(state, 10_000, limits) for state in STATES) == expected


@given(st.sampled_from(STATES), st.builds(IdleLimits, TIMES, TIMES, TIMES), TIMES, st.booleans())
def test_a_container_that_was_acted_on_is_left_until_the_next_limit(
    state: ContainerState, limits: IdleLimits, idle: float, may: bool
) -> None:
    action = decided(state, idle, limits, may_remove=may)
    after = {IdleAction.PAUSE: PAUSED, IdleAction.STOP: STOPPED}.get(action, state)
    if action is not IdleAction.REMOVE:
        assert decided(after, idle, limits, may_remove=may) is IdleAction.LEAVE


@given(TIMES, TIMES, TIMES)
def test_nothing_is_due_before_the_shortest_limit(pause: float, stop: float, remove: float) -> None:
    limits = IdleLimits(pause, stop, remove)
    if limits.shortest is None:
        assert pause == stop == remove == 0
    else:
        assert any(decided(state, limits.shortest, limits) != "leave" for state in STATES)
        assert decided(RUNNING, limits.shortest * 0.99, limits) is IdleAction.LEAVE
