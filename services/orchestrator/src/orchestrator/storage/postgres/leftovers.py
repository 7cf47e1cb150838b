"""Postgres processes that outlived the orchestrator which started them."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from orchestrator.errors import DatabaseUnavailable

POSTMASTER_FILE = "postmaster.pid"

_POLL_SECONDS = 0.01
# Fast shutdown, immediate shutdown, and what no process survives.
_LADDER = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


def processes_of(data: Path) -> set[int]:
    """The ids of the Postgres processes that serve the data directory `data`.

    Each of them, the postmaster included, has that directory as its working directory, so a
    process that merely got a recorded id after a crash is never taken for one. Empty on systems
    without /proc: there Postgres itself refuses to start beside another.
    """
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        # A process may end while we look, and those of other users show no directory.
        with suppress(OSError):
            if (entry / "comm").read_text().strip() == "postgres" and (
                entry / "cwd"
            ).readlink() == data:
                found.add(int(entry.name))
    return found


def postmaster_of(data: Path) -> int | None:
    """The id of the first process as the data directory records it, dead or alive."""
    try:
        return int((data / POSTMASTER_FILE).read_text().splitlines()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return None


async def clear_leftovers(data: Path) -> bool:
    """Stop every Postgres process that serves `data`; True if there was any.

    Call it only while holding the lock of the data directory.

    Raises:
        DatabaseUnavailable: A process could not be ended.
    """
    if not processes_of(data):
        return False
    for step, seconds in _LADDER:
        _signal(data, step)
        if await _gone(data, seconds):
            return True
    pids = ", ".join(map(str, sorted(processes_of(data))))
    raise DatabaseUnavailable(
        f"An earlier Postgres (process {pids}) does not end: end it, then start Berth again."
    )


def _signal(data: Path, step: signal.Signals) -> None:
    pids = processes_of(data)
    if step is signal.SIGINT:
        # Only the postmaster takes it as a shutdown; its children end with it, or without it.
        pids &= {postmaster_of(data)}
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, step)


async def _gone(data: Path, seconds: float) -> bool:
    deadline = asyncio.get_running_loop().time() + seconds
    while processes_of(data):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True
