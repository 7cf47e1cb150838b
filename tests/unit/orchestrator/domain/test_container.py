"""Containers: the decision what to do about one that was found."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.domain.container import (
    Container,
    ContainerState,
    Endpoint,
    Reuse,
    decide_reuse,
)

FOUND = Container(
    name="repo-1",
    workspace_id="1",
    runtime="sandbox",
    state=ContainerState.RUNNING,
    endpoint=Endpoint(Path("/run/1.sock"), "http://worker"),
    created_at=datetime(2025, 1, 1, tzinfo=UTC),
    fingerprint="image-1",
)


def test_where_there_is_none_one_is_created() -> None:
    assert decide_reuse(None, "image-1") is Reuse.CREATE


@pytest.mark.parametrize(
    ("state", "decision"),
    [
        (ContainerState.RUNNING, Reuse.REUSE),
        (ContainerState.PAUSED, Reuse.RESUME),
        (ContainerState.STOPPED, Reuse.START),
        (ContainerState.BROKEN, Reuse.RECREATE),
    ],
)
def test_the_state_decides_while_image_and_limits_are_the_same(
    state: ContainerState, decision: Reuse
) -> None:
    assert decide_reuse(replace(FOUND, state=state), "image-1") is decision


@pytest.mark.parametrize("state", list(ContainerState))
def test_another_image_or_other_limits_replace_it_in_any_state(state: ContainerState) -> None:
    assert decide_reuse(replace(FOUND, state=state), "image-2") is Reuse.RECREATE


@pytest.mark.parametrize(
    ("state", "decision"),
    [
        (ContainerState.RUNNING, Reuse.REUSE),
        (ContainerState.PAUSED, Reuse.RESUME),
        (ContainerState.STOPPED, Reuse.RECREATE),
        (ContainerState.BROKEN, Reuse.RECREATE),
    ],
)
def test_what_runs_is_not_replaced_while_it_is_in_use(
    state: ContainerState, decision: Reuse
) -> None:
    assert decide_reuse(replace(FOUND, state=state), "image-2", in_use=True) is decision
