"""What every runtime measures of a container's disk, from outside."""

import asyncio
import secrets

import pytest
from tests.support.runtimes import MIB, Bench, inside, new_spec

from orchestrator.errors import BerthError, ContainerNotFound

ROOM = MIB
FILL = """
import os
os.makedirs('/workspace/hidden/deep')
for path in ('/workspace/file', '/workspace/hidden/deep/file', '/run/berth/file'):
    open(path, 'wb').write(os.urandom(4 << 20))
os.link('/workspace/file', '/workspace/other')
os.symlink('/usr', '/workspace/usr')
open('/tmp/file', 'wb').write(os.urandom(4 << 20))
os.chmod('/workspace/hidden', 0)
"""


async def test_all_that_a_container_keeps_is_measured_running_or_not(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    container = await runtime.ensure(spec)
    empty = await runtime.disk_use(spec.name)
    assert empty.whole
    assert empty.used_bytes < ROOM
    said = await inside(container, FILL)
    assert said.code == 0, said.err

    use = await runtime.disk_use(spec.name)
    assert use.whole
    assert 12 * MIB <= use.used_bytes <= 12 * MIB + ROOM
    assert use.seconds > 0
    await runtime.pause(spec.name)
    assert (await runtime.disk_use(spec.name)).used_bytes == use.used_bytes
    await runtime.stop(spec.name)
    assert 12 * MIB <= (await runtime.disk_use(spec.name)).used_bytes <= use.used_bytes


async def test_measuring_leaves_nothing_and_is_no_container_of_ours(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    container = await runtime.ensure(spec)
    await runtime.disk_use(spec.name)
    assert [each.name for each in await runtime.list()] == [container.name]
    await runtime.remove(spec.name)
    assert not bench.has_leftovers(spec.name)


async def test_removal_does_not_wait_for_a_measurement(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    await runtime.ensure(spec)
    measuring = asyncio.create_task(runtime.disk_use(spec.name))
    await asyncio.sleep(0)
    await runtime.remove(spec.name)
    (outcome,) = await asyncio.gather(measuring, return_exceptions=True)
    assert not isinstance(outcome, Exception) or isinstance(outcome, BerthError)
    await runtime.tidy(set())
    assert not bench.has_leftovers(spec.name)


async def test_a_measurement_that_is_broken_off_leaves_nothing(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    await runtime.ensure(spec)
    for _ in range(4):
        measuring = asyncio.create_task(runtime.disk_use(spec.name))
        for _ in range(secrets.randbelow(40)):
            await asyncio.sleep(0.005)
        measuring.cancel()
        await asyncio.wait({measuring})
    assert await runtime.tidy({spec.name}) == []
    assert (await runtime.disk_use(spec.name)).whole


async def test_a_container_from_the_pool_is_measured_by_its_new_name(bench: Bench) -> None:
    runtime, pooled, spec = bench.make(), new_spec(), new_spec()
    container = await runtime.ensure(pooled)
    assert (await inside(container, FILL)).code == 0
    assert await runtime.bind(pooled.name, spec)
    assert (await runtime.disk_use(spec.name)).used_bytes >= 12 * MIB


async def test_what_does_not_exist_is_not_measured_and_not_made(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    with pytest.raises(ContainerNotFound):
        await runtime.disk_use(spec.name)
    assert not bench.has_leftovers(spec.name)


async def test_what_is_free_is_told_where_it_can_be_seen(bench: Bench) -> None:
    runtime = bench.make()
    await runtime.ensure(new_spec())
    free = await runtime.disk_free()
    assert free is None or free > 0
    if bench.kind == "sandbox":
        assert free is not None
