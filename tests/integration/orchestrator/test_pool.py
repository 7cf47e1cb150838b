"""The warm pool: bound on demand, filled again, and whole after any crash."""

import asyncio
from dataclasses import replace

import pytest
from tests.support.containers import Household, some_workspace
from tests.support.runtimes import LIMITS

from orchestrator.domain.container import ContainerSpec, ContainerState, Reuse
from orchestrator.domain.workspace import POOL_PREFIX, Workspace
from orchestrator.flow.pool import Pool

LIMITS_BEFORE = replace(LIMITS, pids=LIMITS.pids + 1)
BOUND = {("rename", "after"), ("bind", "after")}
"""Where a binding is complete."""


def spec_of(workspace: Workspace) -> ContainerSpec:
    return ContainerSpec(workspace.container_name, workspace.id, LIMITS)


async def use(household: Household, workspace: Workspace, pool: Pool | None = None) -> Reuse:
    async with household.hold(workspace, pool) as leased:
        await leased.worker.repositories()
        assert leased.container.workspace_id == workspace.id
        assert leased.container.name == workspace.container_name
        return leased.container.how


async def test_a_pooled_container_becomes_a_workspaces(household: Household) -> None:
    pool, workspace = household.pool(2), some_workspace()
    await pool.fill()
    ready = await household.pooled()
    assert [each.state for each in ready] == [ContainerState.PAUSED] * 2
    assert [each.workspace_id for each in ready] == ["", ""]

    assert await use(household, workspace, pool) is Reuse.BIND
    assert await use(household, workspace, pool) is Reuse.REUSE
    assert len(await household.pooled()) == 1
    pid = await household.pid(workspace.container_name)
    assert pid
    await pool.fill()
    assert len(await household.pooled()) == 2

    # It lives on as any other: paused, stopped, replaced, found by a later process, removed.
    name = workspace.container_name
    await household.runtime.pause(name)
    assert await use(household, workspace, pool) is Reuse.RESUME
    await household.runtime.stop(name)
    assert await use(household, workspace, pool) is Reuse.START
    await household.lose(name)
    later = household.later()
    await later.adopt()
    assert await use(later, workspace) is Reuse.CREATE
    await later.runtime.remove(name)
    assert not household.bench.has_leftovers(name)
    assert len(await later.pooled()) == 2
    await pool.remove()
    assert await household.names() == set()
    assert not any(household.bench.data_dir.rglob(f"{POOL_PREFIX}*"))


async def test_a_workspace_with_limits_of_its_own_takes_none(household: Household) -> None:
    pool, workspace = household.pool(1), some_workspace()
    await pool.fill()
    assert not await pool.bind(replace(spec_of(workspace), limits=LIMITS_BEFORE))
    assert len(await household.pooled()) == 1
    assert await use(household, workspace, pool) is Reuse.BIND


async def test_each_goes_to_one_workspace_only(household: Household) -> None:
    pool, workspaces = household.pool(2), [some_workspace() for _ in range(4)]
    await pool.fill()
    hows = await asyncio.gather(*(use(household, each, pool) for each in workspaces))
    assert sorted(hows) == [Reuse.BIND, Reuse.BIND, Reuse.CREATE, Reuse.CREATE]
    names = {each.container_name for each in workspaces}
    assert await household.names() == names
    assert len({await household.pid(name) for name in names}) == 4


async def test_a_workspace_with_work_of_its_own_keeps_it(household: Household) -> None:
    pool, workspace = household.pool(1), some_workspace()
    assert await use(household, workspace) is Reuse.CREATE
    await household.lose(workspace.container_name)
    await pool.fill()
    assert await use(household, workspace, pool) is Reuse.CREATE
    assert len(await household.pooled()) == 1
    assert await use(household, some_workspace(), pool) is Reuse.BIND


async def test_what_is_old_or_too_much_or_not_ready_is_replaced(household: Household) -> None:
    await household.pool(2).fill()
    old = ContainerSpec(f"{POOL_PREFIX}{'0' * 16}", "", LIMITS_BEFORE)
    half = ContainerSpec(f"{POOL_PREFIX}{'1' * 16}", "", LIMITS)
    for spec in (old, half):
        await household.runtime.ensure(spec)
    await household.runtime.pause(old.name)
    await household.later().pool(1).fill()
    (left,) = await household.pooled()
    assert left.name not in {old.name, half.name}
    await household.later().pool(0).run()
    assert await household.names() == set()


@pytest.mark.parametrize(
    ("owner", "method"),
    [("DockerObjects", "make_volume"), ("DockerObjects", "rename"), ("SandboxStore", "bind")],
)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_during_a_binding_leaves_one_owner_or_none(
    household: Household, owner: str, method: str, when: str
) -> None:
    if owner.lower().startswith(household.bench.kind):
        workspace = some_workspace()
        await household.tasks.worker_key(workspace)
        household.kill_at(owner, method, when, workspace.container_name)
        await whole_again(household, workspace, is_bound=(method, when) in BOUND)


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        ("DockerObjects", "create"),
        ("DockerObjects", "start"),
        ("SandboxStore", "write"),
        ("HttpWorkers", "warm"),
        ("DockerRuntime", "pause"),
        ("SandboxRuntime", "pause"),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_while_the_pool_is_filled_leaves_no_orphan(
    household: Household, owner: str, method: str, when: str
) -> None:
    kinds = {"docker", "sandbox"} - {household.bench.kind}
    if not owner.lower().startswith(tuple(kinds)):
        household.kill_at(owner, method, when)
        await whole_again(household, some_workspace(), is_bound=False)


async def whole_again(household: Household, workspace: Workspace, *, is_bound: bool) -> None:
    """After the next start everything belongs to one workspace or to the pool."""
    later = household.later()
    await later.adopt()
    pool, other = later.pool(1), some_workspace()
    await pool.fill()
    name = workspace.container_name
    assert (name in await later.names()) is is_bound
    assert len(await later.pooled()) == 1
    assert await use(later, other, pool) is Reuse.BIND
    assert await use(later, workspace, pool) is (Reuse.RESUME if is_bound else Reuse.CREATE)
    names = {name, other.container_name}
    assert await later.names() == names
    assert len({await later.pid(each) for each in names}) == 2
    for each in names:
        await later.runtime.remove(each)
    assert later.bench.rests() == []
