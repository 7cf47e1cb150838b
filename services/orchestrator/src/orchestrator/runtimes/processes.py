"""Processes of this machine, told apart from later ones with the same number."""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import RuntimeFailure

KILL_SECONDS = 5.0
PAUSE_SECONDS = 0.005

_STATE_FIELD = 0  # of the fields after the command name, see proc(5)
_PARENT_FIELD = 1
_START_FIELD = 19
_DEAD_STATES = frozenset("ZXx")
_STOPPED_STATE = "T"


@dataclass(frozen=True, slots=True)
class Process:
    """A process by its id and its start time in clock ticks since boot."""

    pid: int
    started: int

    def is_alive(self) -> bool:
        """True while this very process runs; a zombie does not."""
        fields = _stat(self.pid)
        return (
            fields is not None
            and int(fields[_START_FIELD]) == self.started
            and fields[_STATE_FIELD] not in _DEAD_STATES
        )

    def is_stopped(self) -> bool:
        """True while this very process is stopped by a signal."""
        fields = _stat(self.pid)
        return (
            fields is not None
            and int(fields[_START_FIELD]) == self.started
            and fields[_STATE_FIELD] == _STOPPED_STATE
        )

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that is gone already needs none."""
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                # The descriptor pins the process; only now is the comparison worth anything.
                if self.is_alive():
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def children(self) -> tuple["Process", ...]:
        """The processes whose parent this is."""
        return tuple(_by_parent().get(self.pid, ()))


def descendants(first: Process) -> tuple[Process, ...]:
    """The children of a process, their children, and so on."""
    by_parent = _by_parent()
    found: list[Process] = list(by_parent.get(first.pid, ()))
    for process in found:  # grows as we go
        found += by_parent.get(process.pid, ())
    return tuple(found)


def process_of(pid: int) -> Process | None:
    """The process that has this id now."""
    fields = _stat(pid)
    return None if fields is None else Process(pid, int(fields[_START_FIELD]))


async def end_process(first: Process, grace_seconds: float) -> None:
    """End a sandbox by its first process, which takes all others with it.

    Args:
        first: Process 1 of the sandbox.
        grace_seconds: How long its children, told to terminate, may take; 0: no such time.

    Raises:
        RuntimeFailure: It does not end although it was killed.
    """
    if grace_seconds and first.is_alive():
        # The first process is bubblewrap, which hands no signal on; its children are the worker.
        for child in first.children():
            child.send(signal.SIGTERM)
        await _is_over(first, grace_seconds)
    first.send(signal.SIGKILL)
    if not await _is_over(first, KILL_SECONDS):
        raise RuntimeFailure(
            f"Process {first.pid} of a sandbox does not end although it was killed.",
            pid=first.pid,
        )


async def _is_over(process: Process, within_seconds: float) -> bool:
    clock = asyncio.get_running_loop().time
    deadline = clock() + within_seconds
    while process.is_alive():
        if clock() > deadline:
            return False
        await asyncio.sleep(PAUSE_SECONDS)
    return True


def _by_parent() -> dict[int, list[Process]]:
    """All processes of this machine by the id of their parent."""
    found: dict[int, list[Process]] = {}
    for entry in Path("/proc").iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdecimal() else None
        if fields is not None:
            child = Process(int(entry.name), int(fields[_START_FIELD]))
            found.setdefault(int(fields[_PARENT_FIELD]), []).append(child)
    return found


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name stands in parentheses and may itself hold spaces and parentheses.
    return text.rpartition(")")[2].split()
