"""What a deployment offers: budgets that are granted, and models by name."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.budget import Budget
from orchestrator.domain.offer import Offer
from orchestrator.domain.request import BudgetRequest
from orchestrator.errors import InvalidRequest

LARGEST = Budget(60, 2_000_000, 1_800.0)
OFFER = Offer(LARGEST, "small", ("large", "Other/Large"))


def test_what_is_not_asked_for_is_the_largest() -> None:
    assert OFFER.budget(BudgetRequest()) == LARGEST
    assert OFFER.budget(BudgetRequest(max_steps=3)) == Budget(3, 2_000_000, 1_800.0)


@given(
    st.builds(
        BudgetRequest,
        st.none() | st.integers(-5, 100),
        st.none() | st.integers(-5, 4_000_000),
        st.none() | st.floats(),
    )
)
def test_a_grant_is_what_was_asked_for_and_never_more_than_the_largest(
    asked: BudgetRequest,
) -> None:
    try:
        budget = OFFER.budget(asked)
    except InvalidRequest as error:
        name = str(error.facts["field"]).removeprefix("budget.")
        wanted = getattr(asked, name)
        assert not 0 < wanted <= getattr(LARGEST, name)
        return
    for name in ("max_steps", "max_tokens", "max_seconds"):
        wanted, got, most = (getattr(each, name) for each in (asked, budget, LARGEST))
        assert 0 < got <= most
        assert got == (most if wanted is None else wanted)


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        (BudgetRequest(max_steps=61), "budget.max_steps", "at most 60."),
        (BudgetRequest(max_tokens=2_000_001), "budget.max_tokens", "at most 2,000,000."),
        (BudgetRequest(max_seconds=1_801.0), "budget.max_seconds", "at most 1,800."),
        (BudgetRequest(max_seconds=math.nan), "budget.max_seconds", "more than 0"),
        (BudgetRequest(max_seconds=math.inf), "budget.max_seconds", "is inf"),
        (BudgetRequest(max_steps=0), "budget.max_steps", "more than 0"),
    ],
)
def test_a_refusal_names_the_field_and_the_limit(
    asked: BudgetRequest, field: str, said: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        OFFER.budget(asked)
    assert refused.value.facts == {"field": field}
    assert said in refused.value.detail


@pytest.mark.parametrize(
    ("asked", "model"),
    [(None, "small"), ("small", "small"), ("large", "large"), ("Other/Large", "Other/Large")],
)
def test_a_model_is_offered_by_its_name(asked: str | None, model: str) -> None:
    assert OFFER.model_named(asked) == model


@pytest.mark.parametrize(
    ("asked", "earlier", "model"),
    [
        (None, "large", "large"),
        ("small", "large", "small"),
        (None, "", "small"),
        (None, "offered no more", "small"),
    ],
)
def test_what_builds_on_a_task_keeps_its_model_while_that_is_offered(
    asked: str | None, earlier: str, model: str
) -> None:
    assert OFFER.model_named(asked, earlier) == model


@pytest.mark.parametrize("asked", ["", "LARGE", "small ", "x" * 200])
def test_a_model_that_is_not_offered_is_refused_with_those_that_are(asked: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        OFFER.model_named(asked)
    assert refused.value.facts == {"field": "model"}
    assert "small or large or Other/Large" in refused.value.detail
    assert "x" * 81 not in refused.value.detail
