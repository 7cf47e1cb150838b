"""What goes on beside the tasks for as long as the service runs."""

import asyncio
import signal
from contextlib import AsyncExitStack
from functools import partial

from orchestrator.flow.fleet import Fleet
from orchestrator.flow.pool import Pool
from orchestrator.main.containers import Containers
from orchestrator.main.metadata import Metadata
from orchestrator.ports import Engine
from orchestrator.settings import Settings

POOL_SECONDS = 3.0
"""How long the end of the service waits for a container that the pool has begun."""


def make_fleet(
    settings: Settings, metadata: Metadata, containers: Containers, engine: Engine
) -> Fleet:
    """Our place among the orchestrators of this deployment; it is not alive yet."""
    return Fleet(
        executor_id=metadata.identity.executor_id,
        executors=metadata.executors,
        shares=containers.shares,
        running=containers.running,
        engine=engine,
        heartbeat_seconds=settings.heartbeat_seconds,
        replaced=partial(signal.raise_signal, signal.SIGTERM),
    )


def take_up_duties(
    metadata: Metadata, containers: Containers, fleet: Fleet, stack: AsyncExitStack
) -> None:
    """Begin to reap, watch disks, fill the pool, heed cancels, look after other orchestrators."""
    for loop in (containers.reaper.run(), containers.disk.run()):
        stack.push_async_callback(_ended, asyncio.create_task(loop))
    pool = containers.pool
    stack.push_async_callback(_stopped, pool, asyncio.create_task(pool.run()))
    cancels = metadata.cancels.follow()
    for duty in (containers.running.heed(cancels), fleet.look_after_others()):
        stack.callback(asyncio.create_task(duty).cancel)


async def _ended(loop: "asyncio.Task[None]") -> None:
    loop.cancel()
    await asyncio.wait({loop})


async def _stopped(pool: Pool, filling: "asyncio.Task[None]") -> None:
    pool.stop()
    await asyncio.wait({filling}, timeout=POOL_SECONDS)
    await _ended(filling)
