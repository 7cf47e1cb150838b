"""Stopping all processes of a sandbox where they are, and letting them go on.

By signals, which need no control groups. The first process is stopped first and goes on last: while
it is stopped the sandbox counts as paused, so that a crash midway leaves one that can be resumed.
"""

import asyncio
import signal

from orchestrator.errors import RuntimeFailure
from orchestrator.runtimes.processes import Process, descendants

FREEZE_SECONDS = 2.0
PAUSE_SECONDS = 0.002


async def freeze(first: Process) -> None:
    """Stop a sandbox's processes, also those that they start meanwhile.

    Raises:
        RuntimeFailure: They do not all stop in time; they go on then.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + FREEZE_SECONDS
    moving = [first]
    while moving:
        for process in moving:
            process.send(signal.SIGSTOP)
        if clock() > deadline:
            thaw(first)
            raise RuntimeFailure(
                f"The processes of sandbox process {first.pid} cannot be stopped.", pid=first.pid
            )
        await asyncio.sleep(PAUSE_SECONDS)
        everyone = (first, *descendants(first))
        moving = [each for each in everyone if each.is_alive() and not each.is_stopped()]


def thaw(first: Process) -> None:
    """Let a sandbox's processes go on; those that run are left as they are."""
    for process in descendants(first):
        process.send(signal.SIGCONT)
    first.send(signal.SIGCONT)
