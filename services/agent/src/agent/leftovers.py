"""End what tools have left running in a task's tree."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from agent.errors import WorkerError

ROUNDS = 100
_PAUSE = 0.01


async def end_leftovers(root: Path) -> None:
    """Kill the processes whose directory is in a tree, until there are none.

    A worker that is killed cannot end its commands, and a command may have put others into the
    background: they would go on to write into the tree. To be called only while no tool of ours
    works in the tree.

    Raises:
        WorkerError: They do not end.
    """
    for _ in range(ROUNDS):
        found = await asyncio.to_thread(_inside, root)
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(_PAUSE)
    raise WorkerError("what a tool has left running does not end")


def _inside(root: Path) -> list[int]:
    place = os.path.realpath(root)
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                directory = str(Path(entry.path, "cwd").readlink())
            except OSError:  # gone, dead, or not ours
                continue
            directory = directory.removesuffix(" (deleted)")
            if directory == place or directory.startswith(f"{place}/"):
                found.append(int(entry.name))
    return found
