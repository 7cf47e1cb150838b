"""What comes of a workspace's settings within what the deployment allows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.container import Limits
from orchestrator.domain.egress import EgressLimits, parse_rule
from orchestrator.domain.workspace_settings import (
    Allowance,
    Bounds,
    ContainerChoice,
    EgressChoice,
    WorkspaceSettings,
    effective,
    require_allowed,
)
from orchestrator.errors import SettingRefused

DEFAULT = Bounds(Limits(1_000, 2.0, 100), EgressLimits(500, 5_000, 8, 16, 60.0))
MAXIMUM = Bounds(Limits(4_000, 2.0, 100), EgressLimits(500, 9_000, 8, 16, 60.0))
ALLOWANCE = Allowance(
    DEFAULT, MAXIMUM, tuple(map(parse_rule, ("api.test", "*.own.test:443", "*.open.test")))
)


def reaching(*hosts: str) -> WorkspaceSettings:
    return WorkspaceSettings(egress=EgressChoice(hosts=hosts))


def test_without_settings_the_deployments_count() -> None:
    counts = effective(WorkspaceSettings(), ALLOWANCE)
    assert (counts.container, counts.egress, counts.rules) == (*vars_of(DEFAULT), ())


def vars_of(bounds: Bounds) -> tuple[Limits, EgressLimits]:
    return bounds.container, bounds.egress


def test_limits_are_lowered_and_raised() -> None:
    settings = WorkspaceSettings(
        ContainerChoice(memory_bytes=3_000, cpus=0.5), EgressChoice(task_bytes=1)
    )
    require_allowed(settings, ALLOWANCE)
    counts = effective(settings, ALLOWANCE)
    assert counts.container == replace(DEFAULT.container, memory_bytes=3_000, cpus=0.5)
    assert counts.egress == replace(DEFAULT.egress, task_bytes=1)


@pytest.mark.parametrize(
    ("settings", "name", "variable"),
    [
        (
            WorkspaceSettings(ContainerChoice(memory_bytes=4_001)),
            "container.memory_bytes",
            "BERTH_WORKSPACE_MAX_MEMORY_BYTES",
        ),
        (
            WorkspaceSettings(ContainerChoice(cpus=2.1)),
            "container.cpus",
            "BERTH_WORKSPACE_MAX_CPUS",
        ),
        (
            WorkspaceSettings(ContainerChoice(pids=101)),
            "container.pids",
            "BERTH_WORKSPACE_MAX_PIDS",
        ),
        (
            WorkspaceSettings(egress=EgressChoice(task_bytes=501)),
            "egress.task_bytes",
            "BERTH_WORKSPACE_MAX_EGRESS_TASK_BYTES",
        ),
        (
            WorkspaceSettings(egress=EgressChoice(workspace_bytes=9_001)),
            "egress.workspace_bytes",
            "BERTH_WORKSPACE_MAX_EGRESS_WORKSPACE_BYTES",
        ),
    ],
)
def test_more_than_the_maximum_is_refused_by_name(
    settings: WorkspaceSettings, name: str, variable: str
) -> None:
    with pytest.raises(SettingRefused, match=name) as caught:
        require_allowed(settings, ALLOWANCE)
    assert variable in caught.value.detail
    assert caught.value.facts["setting"] == name


@given(
    st.builds(
        ContainerChoice,
        memory_bytes=st.none() | st.integers(1),
        cpus=st.none() | st.floats(0.1, 100),
        pids=st.none() | st.integers(1),
    )
)
def test_what_counts_is_never_above_the_maximum(choice: ContainerChoice) -> None:
    counts = effective(WorkspaceSettings(choice), ALLOWANCE).container
    most = MAXIMUM.container
    assert counts.memory_bytes <= most.memory_bytes
    assert counts.cpus <= most.cpus
    assert counts.pids <= most.pids


@pytest.mark.parametrize(
    "host", ["api.test", "api.test:80", "a.own.test:443", "*.b.own.test:443", "*.open.test"]
)
def test_hosts_that_are_permitted(host: str) -> None:
    require_allowed(reaching(host), ALLOWANCE)
    assert effective(reaching(host), ALLOWANCE).rules == (parse_rule(host),)


@pytest.mark.parametrize(
    "host",
    [
        *("other.test", "api.test:8080", "*.api.test", "xapi.test", "a.api.test", "test"),
        *("own.test:443", "a.own.test", "a.own.test:80", "xown.test:443", "*.test", "open.test"),
        *("api.test/path", "u@api.test", "0x7f.1", "127.1", "ä.own.test:443", "", "*."),
    ],
)
def test_hosts_that_are_not(host: str) -> None:
    with pytest.raises(SettingRefused) as caught:
        require_allowed(reaching(host), ALLOWANCE)
    assert caught.value.facts["setting"] == "egress.hosts"


def test_what_is_no_longer_permitted_does_not_count() -> None:
    settings = reaching("api.test", "a.open.test")
    counts = effective(settings, replace(ALLOWANCE, hosts=(parse_rule("api.test"),)))
    assert counts.rules == (parse_rule("api.test"),)
