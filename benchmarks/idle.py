"""How fast containers go to sleep, wake up, and come from the warm pool."""

import asyncio
import time
from statistics import median

from benchmarks.figures import Figure, figure
from benchmarks.house import House
from benchmarks.measures import MILLISECONDS, first_tool_result, floor_of_worktree, new_task
from orchestrator.flow.lease import Lease
from orchestrator.flow.pool import Pool
from orchestrator.flow.shares import LeaseShares
from orchestrator.workers.client import HttpWorkers


async def sleeping(parts: House, rounds: int) -> list[Figure]:
    """Pausing a container, and the time until a paused one's worker answers."""
    pauses, resumes, asks = [], [], []
    name = parts.workspace.container_name
    workers = HttpWorkers()
    for _ in range(rounds):
        async with parts.lease.hold(parts.workspace, parts.generation) as leased:
            began = time.perf_counter()
            await workers.is_healthy(leased.container)
            asks.append(_since(began))
        began = time.perf_counter()
        await parts.runtime.pause(name)
        pauses.append(_since(began))
        began = time.perf_counter()
        async with parts.lease.hold(parts.workspace, parts.generation) as leased:
            await leased.worker.repositories()
        resumes.append(_since(began))
    floor = ("asking a running worker once", median(asks))
    return [
        figure("pause", "ms", pauses, target=30, floor=floor),
        figure("resume, claim and ask a paused worker", "ms", resumes, target=60, floor=floor),
    ]


async def bound(parts: House, rounds: int) -> Figure:
    """From a workspace without a container to its first tool result, out of the warm pool."""
    limits = parts.lease.limits
    workers = HttpWorkers()
    pool = Pool(runtime=parts.runtime, workers=workers, limits=limits, size=1)
    lease = Lease(
        runtime=parts.runtime,
        workers=workers,
        tasks=parts.tasks,
        limits=limits,
        leases=parts.leases,
        shares=LeaseShares(parts.leases, asyncio.Event()),
        bind=pool.bind,
    )
    samples = []
    for _ in range(rounds):
        await parts.runtime.remove(parts.workspace.container_name)
        await pool.fill()
        await asyncio.sleep(0)
        task = await new_task(parts)
        began = time.perf_counter()
        how = await first_tool_result(parts, task, lease)
        samples.append(_since(began))
        if how != "bind":
            raise RuntimeError(f"the container did not come from the pool but by {how}")
    await pool.remove()
    floor = ("`git worktree add` of the same tree", await floor_of_worktree(parts, rounds))
    return figure("warm-pool bind to first tool result", "ms", samples, target=100, floor=floor)


def _since(began: float) -> float:
    return (time.perf_counter() - began) * MILLISECONDS
