"""How fast a tool call that runs is stopped."""

import asyncio
import time
from statistics import median

from benchmarks.figures import Figure, figure
from benchmarks.house import House
from benchmarks.measures import MILLISECONDS, new_task
from orchestrator.ports import Toolbox

# The worst case: whoever is asked to end does not, and is killed after a grace.
STUBBORN = "trap '' TERM; touch began-{number}; sleep 60"
BEGIN_SECONDS = 10.0


async def interrupting(parts: House, rounds: int) -> Figure:
    """From asking a worker to stop a command that ignores it, until its call has its result."""
    task = await new_task(parts)
    samples, floors = [], []
    async with parts.lease.hold(parts.workspace, parts.generation) as leased:
        await parts.supply(task, leased.worker)
        async with leased.worker.toolbox(task.id) as toolbox:
            for number in range(rounds):
                began = time.perf_counter()
                await toolbox.call("bash", {"command": "true"})
                floors.append((time.perf_counter() - began) * MILLISECONDS)
                command = STUBBORN.format(number=number)
                running = asyncio.create_task(
                    toolbox.call("bash", {"command": command}, key=str(number))
                )
                async with asyncio.timeout(BEGIN_SECONDS):
                    while not await _has_begun(toolbox, number):
                        await asyncio.sleep(0.01)
                began = time.perf_counter()
                await leased.worker.interrupt(task.id)
                if not (await running).is_error:
                    raise RuntimeError("the command was not stopped")
                samples.append((time.perf_counter() - began) * MILLISECONDS)
    floor = ("a command that does nothing", median(floors))
    return figure("interrupt of a stubborn command", "ms", samples, target=1_000, floor=floor)


async def _has_begun(toolbox: Toolbox, number: int) -> bool:
    said = await toolbox.call("bash", {"command": f"test -e began-{number}"})
    return said.text.startswith("exit code: 0")
