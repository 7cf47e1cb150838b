"""Measuring what a workspace holds on disk, by a process that its container cannot reach."""

import asyncio
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from pydantic import TypeAdapter, ValidationError

from orchestrator.domain.disk import DiskUse
from orchestrator.errors import RuntimeFailure
from orchestrator.runtimes import disk_walk
from orchestrator.runtimes.bubblewrap import SEARCH_PATH

WALK_SECONDS = 300.0
MORE_SECONDS = 30.0
"""How much longer than its walk the process may take to start and to end."""
SHOWN = 300
DISK_IS_WATCHED = "disk (measured now and then, so it can be overshot)"

_Printed = TypeAdapter(tuple[int, bool])


def walk_argv(python: str, roots: Sequence[str]) -> list[str]:
    """The command that measures directories, wherever `python` is."""
    # -I and -S: nothing but Python's own library is loaded.
    program = inspect.getsource(disk_walk)
    return [python, "-I", "-S", "-c", program, str(WALK_SECONDS), *roots]


def read_walk(output: str, seconds: float) -> DiskUse:
    """What the program has printed, as its last line.

    Raises:
        RuntimeFailure: It failed.
    """
    last = output.strip().rpartition("\n")[2]
    try:
        used_bytes, whole = _Printed.validate_json(last)
    except ValidationError:
        raise RuntimeFailure(f"The workspace cannot be measured: {last[:SHOWN]}") from None
    return DiskUse(used_bytes, seconds, whole)


async def measure_here(roots: Sequence[Path]) -> DiskUse:
    """Measure directories of this machine.

    Raises:
        RuntimeFailure: It cannot be done.
    """
    began = monotonic()
    argv = walk_argv(sys.executable, [str(root) for root in roots])
    if os.geteuid() != 0:
        # Root of a namespace may read what its own user has made unreadable.
        argv = ["unshare", "--user", "--map-root-user", *argv]
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": SEARCH_PATH},
        cwd="/",
    )
    try:
        async with asyncio.timeout(WALK_SECONDS + MORE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        raise RuntimeFailure("The workspace cannot be measured: the process hangs.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return read_walk(output.decode(errors="replace"), monotonic() - began)


async def free_bytes(path: Path) -> int | None:
    """What the file system of a path has left; None if there is no such path here."""
    try:
        facts = await asyncio.to_thread(os.statvfs, path)
    except OSError:
        return None
    return facts.f_bfree * facts.f_frsize
