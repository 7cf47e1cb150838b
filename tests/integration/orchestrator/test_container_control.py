"""Containers are stopped and removed at their doors, and not under a task."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.support.containers import Household, some_workspace

from orchestrator.domain.container import ContainerState, Reuse
from orchestrator.errors import ContainerBusy, ContainerNotFound
from orchestrator.flow.container_control import ContainerControl

DOOR_SECONDS = 30.0


def control_of(household: Household) -> ContainerControl:
    return ContainerControl(household.runtime, household.tasks, household.occupancy)


@pytest.mark.parametrize(
    ("act", "end", "how"),
    [
        (ContainerControl.stop, ContainerState.STOPPED, Reuse.START),
        (ContainerControl.remove, None, Reuse.CREATE),
    ],
)
async def test_it_waits_at_the_door(
    household: Household,
    act: Callable[[ContainerControl, str], Awaitable[None]],
    end: ContainerState | None,
    how: Reuse,
) -> None:
    workspace, control = some_workspace(), control_of(household)
    await household.use(workspace)
    async with household.occupancy.at(workspace.container_name) as door:
        acting = asyncio.ensure_future(act(control, workspace.container_name))
        async with asyncio.timeout(DOOR_SECONDS):
            while door.visitors == 1:
                await asyncio.sleep(0)
        assert await household.state(workspace) is ContainerState.RUNNING
        assert not acting.done()
    await acting
    assert await household.state(workspace) is end
    assert await household.use(workspace) is how


async def test_a_container_that_a_task_works_in_is_not_removed(household: Household) -> None:
    workspace, control = some_workspace(), control_of(household)
    await household.use(workspace)
    task_id = await household.begin(workspace)
    with pytest.raises(ContainerBusy) as refused:
        await control.remove(workspace.container_name)
    assert refused.value.facts["task_id"] == task_id
    assert await household.state(workspace) is ContainerState.RUNNING


@pytest.mark.parametrize("name", ["", "..", "repo-", "repo-0123456789abcdef", "x" * 500])
async def test_a_container_that_is_not_there_is_named_shortly(
    household: Household, name: str
) -> None:
    control = control_of(household)
    for acting in (control.stop(name), control.remove(name), control.logs(name, 1)):
        with pytest.raises(ContainerNotFound) as refused:
            await acting
        assert "x" * 81 not in refused.value.detail
