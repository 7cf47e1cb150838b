"""A part of the crash sweep: each process killed on each runtime; `scripts/sweep` runs it whole."""

import asyncio

import pytest
from tests.acceptance.conftest import RUNTIMES
from tests.support.crash_play import moments
from tests.support.sweep import Case, Result, run_cases
from tests.support.victims import Victim

SAMPLE = {
    Victim.ORCHESTRATOR: ("4-bash-middle", "10-apply_patch-effect"),
    Victim.WORKER: ("2-write_file-middle", "8-bash-middle"),
    Victim.CONTAINER: ("14-bash-sent",),
    Victim.POSTGRES: ("6-bash-effect", "15-model-answered"),
}


def test_every_kind_of_moment_is_in_the_sweep() -> None:
    names = [str(moment) for moment in moments()]
    assert len(names) == len(set(names)) == 39
    assert {name for sample in SAMPLE.values() for name in sample} <= set(names)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("runtime", RUNTIMES, indirect=True)
def test_a_kill_changes_nothing(runtime: str) -> None:
    by_name = {str(moment): moment for moment in moments()}
    cases = [
        Case(runtime, victim, by_name[name]) for victim, names in SAMPLE.items() for name in names
    ]
    told: list[Result] = []
    results = asyncio.run(run_cases(cases, told.append, lanes=2))
    assert [f"{each.case}: {each.problem}" for each in results if each.problem] == []
    assert len(results) == len(told) == len(cases)
