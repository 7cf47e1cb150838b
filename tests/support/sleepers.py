"""Commands that sleep in containers, seen and ended from outside."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

BEGIN_SECONDS = 60.0
PAUSE_SECONDS = 0.02


def new_sleep() -> int:
    """Seconds that no other test sleeps, and longer than any test takes."""
    return random.randrange(10**6, 10**9)


def short_sleep() -> float:
    """Seconds that no other test sleeps, few enough to wait for."""
    return 4 + random.randrange(10**6) / 10**6


def wakeable(seconds: int) -> str:
    """A command that sleeps; whoever ends the sleep goes on, and nothing is said about it."""
    return f"{{ sleep {seconds}; }} 2>/dev/null; "


async def until_sleeping(seconds: float, count: int = 1) -> None:
    """Wait until so many commands sleep for so long."""
    async with asyncio.timeout(BEGIN_SECONDS):
        while len(await asyncio.to_thread(_sleepers, seconds)) < count:
            await asyncio.sleep(PAUSE_SECONDS)


async def is_sleeping(seconds: float) -> bool:
    """Whether a command sleeps for so long at the moment."""
    return bool(await asyncio.to_thread(_sleepers, seconds))


@asynccontextmanager
async def waking(seconds: float) -> AsyncIterator[None]:
    """While the context lasts, end every sleep of so long as soon as it begins."""
    task = asyncio.create_task(_wake(seconds))
    try:
        yield
    finally:
        task.cancel()


async def _wake(seconds: float) -> None:
    while True:
        for pid in await asyncio.to_thread(_sleepers, seconds):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        await asyncio.sleep(2 * PAUSE_SECONDS)


def _sleepers(seconds: float) -> list[int]:
    command = f"sleep\0{seconds}\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if (entry / "cmdline").read_bytes() == command:
                found.append(int(entry.name))
    return found
