"""Pausing, on the real runtimes."""

import asyncio
import secrets
import signal
import time
from dataclasses import replace

import pytest
from tests.support.runtimes import Bench, inside, new_spec

from orchestrator.domain.container import Container, ContainerState, Reuse
from orchestrator.errors import WorkerRefused
from orchestrator.ports import Runtime
from orchestrator.runtimes.readiness import is_healthy
from orchestrator.workers.client import HttpWorkers

COUNT_SECONDS = 0.01
PAUSED_SECONDS = 1.0
COUNT = (
    "import os, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    [os.close(each) for each in (0, 1, 2)]\n"
    "    while True:\n"
    "        open('count', 'a').write('x')\n"
    f"        time.sleep({COUNT_SECONDS})\n"
)
COUNTED = "import os; print(os.path.getsize('count'))"


async def state(runtime: Runtime, name: str) -> ContainerState | None:
    found = await runtime.poll(name)
    return None if found is None else found.state


async def test_a_paused_container_is_resumed(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    first = await runtime.ensure(spec)
    await runtime.pause(spec.name)

    assert [each.state for each in await runtime.list()] == [ContainerState.PAUSED]
    assert not await is_healthy(first.endpoint, 0.2)
    again = await runtime.ensure(spec)
    assert again == replace(first, how=Reuse.RESUME)
    assert (await inside(again, "print('alive')")).out == "alive\n"
    assert await state(runtime, spec.name) is ContainerState.RUNNING


async def test_all_processes_stand_still_and_go_on(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    container = await runtime.ensure(spec)
    await inside(container, COUNT)
    await runtime.pause(spec.name)
    first = await counted(await runtime.ensure(spec))
    began = time.monotonic()
    await runtime.pause(spec.name)
    paused = time.monotonic()
    await asyncio.sleep(PAUSED_SECONDS)
    resuming = time.monotonic()
    resumed = await counted(await runtime.ensure(spec))
    # It cannot have counted more often than it had time to while it was not paused.
    awake = (paused - began) + (time.monotonic() - resuming)
    assert resumed - first <= awake / COUNT_SECONDS + 1
    while await counted(container) == resumed:
        await asyncio.sleep(0.01)


async def counted(container: Container) -> int:
    return int((await inside(container, COUNTED)).out)


async def test_the_claim_survives(bench: Bench) -> None:
    runtime, spec, key = bench.make(agent_command=None), new_spec(), secrets.token_urlsafe(32)
    container = await runtime.ensure(spec)
    await (await HttpWorkers().connect(container, key)).close()
    await runtime.pause(spec.name)
    resumed = await runtime.ensure(spec)
    with pytest.raises(WorkerRefused, match="another key"):
        await HttpWorkers().connect(resumed, secrets.token_urlsafe(32))
    worker = await HttpWorkers().connect(resumed, key)
    assert await worker.repositories() == []
    await worker.close()


async def test_pausing_what_does_not_run_changes_nothing(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    await runtime.pause(spec.name)
    assert await runtime.poll(spec.name) is None
    await runtime.ensure(spec)
    await runtime.pause(spec.name)
    await runtime.pause(spec.name)
    assert await state(runtime, spec.name) is ContainerState.PAUSED
    await runtime.stop(spec.name)
    await runtime.pause(spec.name)
    assert await state(runtime, spec.name) is ContainerState.STOPPED
    assert (await runtime.ensure(spec)).how is Reuse.START


async def test_a_later_orchestrator_resumes_it(bench: Bench) -> None:
    spec = new_spec()
    await bench.make().ensure(spec)
    await bench.make().pause(spec.name)
    later = bench.make()
    assert await state(later, spec.name) is ContainerState.PAUSED
    assert (await later.ensure(spec)).how is Reuse.RESUME


async def test_a_paused_container_can_be_removed(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    await runtime.ensure(spec)
    await runtime.pause(spec.name)
    await runtime.remove(spec.name)
    assert await runtime.list() == []
    assert not bench.has_leftovers(spec.name)


async def test_one_that_hangs_after_its_pause_is_replaced(bench: Bench) -> None:
    runtime, spec = bench.make(start_timeout_seconds=2), new_spec()
    await runtime.ensure(spec)
    worker = await bench.worker(spec.name)
    await runtime.pause(spec.name)
    worker.send(signal.SIGKILL)
    assert (await runtime.ensure(spec)).how in {Reuse.RECREATE, Reuse.START}
    assert await state(runtime, spec.name) is ContainerState.RUNNING


async def test_a_container_in_use_is_not_replaced_by_a_newer_one(bench: Bench) -> None:
    runtime, spec = bench.make(), new_spec()
    first = await runtime.ensure(spec)
    newer = replace(spec, limits=replace(spec.limits, pids=spec.limits.pids + 1))
    assert await runtime.ensure(replace(newer, in_use=True)) == replace(first, how=Reuse.REUSE)
    assert first.fingerprint == await runtime.fingerprint(spec.limits)
    again = await runtime.ensure(newer)
    assert again.how is Reuse.RECREATE
    assert again.fingerprint == await runtime.fingerprint(newer.limits) != first.fingerprint
