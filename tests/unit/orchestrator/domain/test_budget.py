"""Budgets: when a task may take another step, and what it is told when it may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.budget import Budget, Spent, StopReason, exhausted, used_up

LIMIT = Budget(max_steps=10, max_tokens=100, max_seconds=5.0)
BUDGETS = st.builds(
    Budget, st.integers(1, 50), st.integers(1, 50), st.floats(0.1, 50, allow_nan=False)
)
SPENT = st.builds(Spent, st.integers(0, 60), st.integers(0, 60), st.floats(0, 60, allow_nan=False))


@pytest.mark.parametrize(
    ("spent", "reason"),
    [
        (Spent(), None),
        (Spent(9, 99, 4.99), None),
        (Spent(steps=10), StopReason.MAX_STEPS),
        (Spent(tokens=100), StopReason.MAX_TOKENS),
        (Spent(seconds=5.0), StopReason.MAX_SECONDS),
    ],
)
def test_a_limit_that_is_reached_forbids_the_next_step(
    spent: Spent, reason: StopReason | None
) -> None:
    assert exhausted(LIMIT, spent) is reason


@given(BUDGETS, SPENT)
def test_a_task_goes_on_exactly_while_it_is_below_every_limit(budget: Budget, spent: Spent) -> None:
    below = (
        spent.steps < budget.max_steps
        and spent.tokens < budget.max_tokens
        and spent.seconds < budget.max_seconds
    )
    assert (exhausted(budget, spent) is None) is below


@given(BUDGETS, SPENT, SPENT)
def test_spending_more_never_helps(budget: Budget, one: Spent, two: Spent) -> None:
    more = Spent(one.steps + two.steps, one.tokens + two.tokens, one.seconds + two.seconds)
    if exhausted(budget, one) is not None:
        assert exhausted(budget, more) is not None


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (StopReason.MAX_STEPS, "10 steps"),
        (StopReason.MAX_TOKENS, "2,000,000 tokens"),
        (StopReason.MAX_SECONDS, "1,800 seconds"),
    ],
)
def test_the_error_names_the_limit_in_plain_figures(reason: StopReason, said: str) -> None:
    error = used_up(reason, Budget(10, 2_000_000, 1_800.0))
    assert said in error.detail
    assert error.facts == {"reason": reason.value}
    assert error.code == "budget_exhausted"
