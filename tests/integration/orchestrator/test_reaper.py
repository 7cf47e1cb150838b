"""Idle containers are scaled down, and never under a task."""

import asyncio
from datetime import timedelta
from random import Random

from tests.support.containers import THEM, Household, some_workspace

from orchestrator.domain.container import ContainerState, Reuse
from orchestrator.domain.idle import IdleLimits
from orchestrator.domain.workspace import Workspace

LIMITS = IdleLimits(pause_seconds=60, stop_seconds=600, remove_seconds=6_000)
AT_ONCE = IdleLimits(pause_seconds=1e-9, stop_seconds=0, remove_seconds=0)


RESUMED = 8


async def test_a_container_is_paused_then_stopped_then_removed(household: Household) -> None:
    workspace, reaper = some_workspace(), household.reaper(LIMITS)
    await household.use(workspace)
    await reaper.sweep()
    assert await household.state(workspace) is ContainerState.RUNNING
    for seconds, expected, how in (
        (61, ContainerState.PAUSED, Reuse.RESUME),
        (601, ContainerState.STOPPED, Reuse.START),
        (6_001, None, Reuse.CREATE),
    ):
        household.clock.later = timedelta(seconds=seconds)
        await reaper.sweep()
        assert await household.state(workspace) is expected
        assert await household.use(workspace) is how
    assert household.bench.has_leftovers(workspace.container_name)
    household.clock.later = timedelta(seconds=12_002)
    await reaper.sweep()
    assert not household.bench.has_leftovers(workspace.container_name)


async def test_what_a_task_uses_waits_for_or_others_hold_is_left(household: Household) -> None:
    used, waited_for, theirs = some_workspace(), some_workspace(), some_workspace()
    household.clock.later = timedelta(days=365)
    for workspace in (waited_for, theirs):
        await household.use(workspace)
    await household.begin(waited_for)
    household.leased = {theirs.id: THEM}
    async with household.hold(used):
        await household.reaper(LIMITS).sweep()
        for workspace in (used, waited_for, theirs):
            assert await household.state(workspace) is ContainerState.RUNNING
    household.leased = {}
    await household.reaper(LIMITS).sweep()
    assert await household.names() == {waited_for.container_name}


async def test_work_that_is_kept_nowhere_else_is_stopped_only(household: Household) -> None:
    workspace = some_workspace()
    await household.use(workspace)
    household.clock.later = timedelta(days=365)

    async def never(asked: Workspace) -> bool:
        assert asked == workspace
        return False

    await household.reaper(LIMITS, never).sweep()
    assert await household.state(workspace) is ContainerState.STOPPED


async def test_tasks_that_begin_while_it_reaps_win_or_wait_and_never_fail(
    household: Household,
) -> None:
    workspaces, random = [some_workspace() for _ in range(2)], Random(7)
    reaper = household.reaper(AT_ONCE)
    hows: list[Reuse] = []

    async def work(workspace: Workspace) -> None:
        while hows.count(Reuse.RESUME) < RESUMED:
            await asyncio.sleep(random.random() * 0.2)
            async with household.hold(workspace) as leased:
                hows.append(leased.container.how)
                for _ in range(3):
                    await leased.worker.repositories()  # would hang in a paused container
                    assert await household.state(workspace) is ContainerState.RUNNING
                    await asyncio.sleep(random.random() * 0.01)

    async def reap() -> None:
        while True:
            await reaper.sweep()

    reaping = asyncio.create_task(reap())
    try:
        async with asyncio.timeout(90):
            await asyncio.gather(*(work(each) for each in workspaces for _ in range(2)))
    finally:
        reaping.cancel()
        await asyncio.wait({reaping})
    assert hows.count(Reuse.CREATE) == len(workspaces)
    assert not {Reuse.START, Reuse.RECREATE} & set(hows)
