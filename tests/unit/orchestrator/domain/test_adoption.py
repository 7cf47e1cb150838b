"""Adoption: every combination of what is known about a container that was found."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from orchestrator.domain.adoption import Adoption, decide_adoption
from orchestrator.domain.container import Container, ContainerState, Endpoint

FOUND = Container(
    name="repo-1",
    workspace_id="1",
    runtime="sandbox",
    state=ContainerState.RUNNING,
    endpoint=Endpoint(Path("/run/1.sock"), "http://worker"),
    created_at=datetime(2025, 1, 1, tzinfo=UTC),
    fingerprint="image-1",
)
BOTH = (False, True)
ALL = list(product(ContainerState, BOTH, BOTH, BOTH, BOTH, BOTH))


@pytest.mark.parametrize(("state", "here", "known", "foreign", "unfinished", "healthy"), ALL)
def test_every_case(
    state: ContainerState,
    *,
    here: bool,
    known: bool,
    foreign: bool,
    unfinished: bool,
    healthy: bool,
) -> None:
    decision = decide_adoption(
        replace(FOUND, state=state, made_here=here),
        is_known=known,
        is_foreign=foreign,
        is_unfinished=unfinished,
        is_healthy=healthy,
    )
    owned = known or unfinished
    broken = state is ContainerState.BROKEN or (state is ContainerState.RUNNING and not healthy)
    if foreign:
        assert decision is Adoption.LEAVE
    elif not owned or broken:
        destroyed = Adoption.REPLACE if owned else Adoption.REMOVE
        assert decision is (destroyed if here else Adoption.LEAVE)
    else:
        assert decision is Adoption.ADOPT
