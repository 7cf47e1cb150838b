"""What becomes of the containers that are there at a start."""

import signal
from dataclasses import replace

from tests.support.containers import THEM, Household, some_workspace
from tests.support.runtimes import LIMITS, Bench, new_spec

from orchestrator.domain.container import ContainerSpec, ContainerState, Reuse
from orchestrator.domain.workspace import Workspace, scratch_workspace
from orchestrator.flow.lease import Leased

LIMITS_BEFORE = replace(LIMITS, pids=LIMITS.pids + 1)


async def held(household: Household, workspace: Workspace) -> Leased:
    async with household.hold(workspace) as leased:
        await leased.worker.repositories()
        return leased


async def test_the_healthy_are_adopted_and_nothing_in_them_restarts(household: Household) -> None:
    running, paused, unfinished = (some_workspace() for _ in range(3))
    pids = {}
    for workspace in (running, paused, unfinished):
        await held(household, workspace)
        pids[workspace] = await household.pid(workspace.container_name)
    await household.runtime.pause(paused.container_name)
    await household.begin(unfinished)

    later = household.later()
    await later.adopt()
    states = {each.name: each.state for each in await later.runtime.list()}
    assert states.pop(paused.container_name) is ContainerState.PAUSED
    assert set(states.values()) == {ContainerState.RUNNING}
    for workspace, pid in pids.items():
        expected = Reuse.RESUME if workspace is paused else Reuse.REUSE
        assert (await held(later, workspace)).container.how is expected
        assert await later.pid(workspace.container_name) == pid


async def test_a_newer_image_waits_until_the_unfinished_task_has_gone_on(
    household: Household,
) -> None:
    unfinished, idle = some_workspace(), some_workspace()
    for workspace in (unfinished, idle):
        older = ContainerSpec(workspace.container_name, workspace.id, LIMITS_BEFORE)
        await household.runtime.ensure(older)
        await household.tasks.worker_key(workspace)
    await household.begin(unfinished)
    later = household.later()
    await later.adopt()
    async with later.hold(unfinished) as leased:
        assert leased.container.how is Reuse.REUSE
        assert (await held(later, unfinished)).container.how is Reuse.REUSE
    assert (await held(later, unfinished)).container.how is Reuse.RECREATE
    assert (await held(later, idle)).container.how is Reuse.RECREATE


async def test_the_broken_are_replaced_and_keep_their_work(household: Household) -> None:
    workspace = some_workspace()
    await held(household, workspace)
    worker = await household.bench.worker(workspace.container_name)
    worker.send(signal.SIGSTOP)
    later = household.later()
    await later.adopt()
    found = await later.runtime.poll(workspace.container_name)
    assert found is not None
    assert found.state is ContainerState.STOPPED
    assert (await held(later, workspace)).container.how is Reuse.START


async def test_what_nobody_owns_is_removed(household: Household) -> None:
    unknown, scratch, busy = new_spec(), scratch_workspace("t1"), scratch_workspace("t2")
    await household.runtime.ensure(unknown)
    await held(household, scratch)
    await held(household, busy)
    await household.begin(busy)
    later = household.later()
    await later.adopt()
    assert await later.names() == {busy.container_name}
    for name in (unknown.name, scratch.container_name):
        assert not household.bench.has_leftovers(name)


async def test_a_live_orchestrators_and_another_deployments_are_left(
    household: Household,
) -> None:
    bench, theirs, foreign = household.bench, some_workspace(), new_spec()
    other = bench.make(deployment=f"{bench.deployment}-2", agent_command=None)
    there = await other.ensure(foreign)
    await held(household, theirs)
    household.leased = {theirs.id: THEM}
    (await bench.worker(theirs.container_name)).send(signal.SIGSTOP)
    later = household.later()
    await later.adopt()
    assert [each.state for each in await later.runtime.list()] == [ContainerState.RUNNING]
    assert await other.list() == [replace(there, how=Reuse.REUSE)]
    (await bench.worker(theirs.container_name)).send(signal.SIGCONT)


async def test_a_container_made_with_another_data_directory_is_left(household: Household) -> None:
    if household.bench.kind == "sandbox":
        return  # a sandbox lies in the data directory itself
    elsewhere = Bench("docker", household.bench.deployment)
    spec = new_spec()
    await elsewhere.make(agent_command=None).ensure(spec)
    try:
        await household.adopt()
        assert await household.names() == {spec.name}
    finally:
        await elsewhere.clean()


async def test_rests_of_crashes_go_and_the_work_of_workspaces_stays(household: Household) -> None:
    known, unknown = some_workspace(), new_spec()
    await held(household, known)
    await household.runtime.ensure(unknown)
    await household.lose(known.container_name)
    await household.lose(unknown.name)
    later = household.later()
    await later.adopt()
    assert not household.bench.has_leftovers(unknown.name)
    assert household.bench.has_leftovers(known.container_name)
    assert (await held(later, known)).container.how is Reuse.CREATE
