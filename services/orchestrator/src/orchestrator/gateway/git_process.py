"""One git process: bounded in time, output and memory, and always reaped."""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

STDERR_KEPT = 16 * 1024
CHUNK = 256 * 1024
WATCH_SECONDS = 0.1

Guard = Callable[[], Coroutine[None, None, None]]
"""Runs beside git and returns when git has to be stopped."""


class Ended(StrEnum):
    """How a git process came to its end."""

    EXITED = "exited"
    TIMED_OUT = "timed_out"
    TOO_MUCH_OUTPUT = "too_much_output"
    TOO_MUCH_MEMORY = "too_much_memory"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class GitOutcome:
    """What a git process did; `stderr` is its last part and may hold anything."""

    ended: Ended
    returncode: int
    stdout: bytes
    stderr: str

    @property
    def ok(self) -> bool:
        """True if git ended by itself and reports success."""
        return self.ended is Ended.EXITED and self.returncode == 0


async def supervised(
    process: asyncio.subprocess.Process,
    exchange: Coroutine[None, None, GitOutcome],
    timeout_seconds: float,
    guards: Mapping[Ended, Guard],
) -> GitOutcome:
    """What the exchange yields, unless time runs out or a guard returns before that."""
    outcome = asyncio.create_task(exchange)
    watching = {asyncio.create_task(guard()): ended for ended, guard in guards.items()}
    waited = {outcome, *watching}
    try:
        await asyncio.wait(waited, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if outcome.done():
            return await outcome
        for task, ended in watching.items():
            if task.done():
                await task
                return GitOutcome(ended, -1, b"", "")
        return GitOutcome(Ended.TIMED_OUT, -1, b"", "")
    finally:
        kill(process)
        for waiting in waited:
            waiting.cancel()
        await asyncio.gather(*waited, return_exceptions=True)
        await reap(process)


async def hungry(pid: int, limit: int) -> None:
    """Return once the process and what it started hold more than `limit` bytes of memory.

    git keeps a whole list of references in memory before it prints any, so that a server which
    never ends its list would fill the machine.
    """
    held = 0
    while held <= limit:
        await asyncio.sleep(WATCH_SECONDS)
        held = memory_of(pid)


def memory_of(pid: int) -> int:
    """Bytes of its own that a process and its descendants hold; 0 where there is no `/proc`."""
    held, waiting = 0, [pid]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        # Processes end while they are counted.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            _, resident, shared = (process / "statm").read_text().split()[:3]
            held += (int(resident) - int(shared)) * resource.getpagesize()
            children = (process / "task" / process.name / "children").read_text()
            waiting.extend(int(child) for child in children.split())
    return held


async def exchange(
    process: asyncio.subprocess.Process, stdin: bytes, max_output: int
) -> GitOutcome:
    """Give git its input and collect what it says; at most `max_output` bytes of output."""
    errors = asyncio.create_task(tail(reader(process.stderr)))
    feeding = asyncio.create_task(feed(process, stdin))
    try:
        output = await _head(reader(process.stdout), max_output)
        if output is None:
            return GitOutcome(Ended.TOO_MUCH_OUTPUT, -1, b"", "")
        await feeding
        return GitOutcome(Ended.EXITED, await process.wait(), output, await errors)
    finally:
        feeding.cancel()
        errors.cancel()
        await asyncio.gather(feeding, errors, return_exceptions=True)


async def feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    """Write the input and close it; nothing to do for git that reads a file."""
    if process.stdin is None:
        return
    # git may end without reading all of it; its exit status then tells why.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()


async def _head(reader: asyncio.StreamReader, limit: int) -> bytes | None:
    """All of the output, or None as soon as it is longer than `limit` bytes."""
    output = bytearray()
    while chunk := await reader.read(CHUNK):
        output += chunk
        if len(output) > limit:
            return None
    return bytes(output)


async def tail(reader: asyncio.StreamReader) -> str:
    """The last part of the output; the rest is read and dropped."""
    kept = b""
    while chunk := await reader.read(CHUNK):
        kept = (kept + chunk)[-STDERR_KEPT:]
    return kept.decode(errors="replace")


def reader(pipe: asyncio.StreamReader | None) -> asyncio.StreamReader:
    """The pipe, which is there as git is always started with one."""
    if pipe is None:
        raise RuntimeError("git was started without a pipe")
    return pipe


def kill(process: asyncio.subprocess.Process) -> None:
    """Kill the process with all that it started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def reap(process: asyncio.subprocess.Process) -> None:
    """Wait for a process that ended or was killed; nobody else may read from it any more."""
    for pipe in (reader(process.stdout), reader(process.stderr)):
        # Some Python versions see the end of a process only after the end of its output.
        while not pipe.at_eof():
            await pipe.read(CHUNK)
    await process.wait()
