"""The choice of the runtime."""

import pytest

from orchestrator.errors import RuntimeUnavailable
from orchestrator.runtimes.selection import Probe, choose
from orchestrator.settings import RuntimeChoice

AUTO, DOCKER, SANDBOX = RuntimeChoice.AUTO, RuntimeChoice.DOCKER, RuntimeChoice.SANDBOX


def probe(problem: str | None) -> Probe:
    async def answer() -> str | None:
        return problem

    return answer


async def never() -> str | None:
    pytest.fail("a runtime was probed that was not asked for")


async def test_docker_comes_first() -> None:
    selection = await choose(AUTO, docker=probe(None), sandbox=probe(None))
    assert selection.choice is DOCKER


async def test_the_sandbox_is_next_and_the_reason_says_why() -> None:
    selection = await choose(AUTO, docker=probe("No engine answers."), sandbox=probe(None))
    assert selection.choice is SANDBOX
    assert "No engine answers." in selection.reason


async def test_with_neither_both_remedies_are_named() -> None:
    with pytest.raises(RuntimeUnavailable) as failed:
        await choose(AUTO, docker=probe("Start it."), sandbox=probe("Install bubblewrap."))
    assert "Start it." in failed.value.detail
    assert "Install bubblewrap." in failed.value.detail


async def test_what_was_asked_for_is_taken_without_a_look_at_the_other() -> None:
    assert (await choose(DOCKER, docker=probe(None), sandbox=never)).choice is DOCKER
    assert (await choose(SANDBOX, docker=never, sandbox=probe(None))).choice is SANDBOX


@pytest.mark.parametrize("wanted", [DOCKER, SANDBOX])
async def test_what_was_asked_for_is_never_replaced(wanted: RuntimeChoice) -> None:
    good, bad = probe(None), probe("It is broken.")
    with pytest.raises(RuntimeUnavailable, match=r"It is broken\."):
        await choose(
            wanted,
            docker=bad if wanted is DOCKER else good,
            sandbox=bad if wanted is SANDBOX else good,
        )
