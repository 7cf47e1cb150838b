"""The service as a process of its own, on the database of the house."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running service.

    Args:
        port: Where it listens, on the loopback interface.
        kill: Ends it with SIGKILL.
    """

    port: int
    kill: Callable[[], None]


@asynccontextmanager
async def service(
    data_dir: Path, runtime: str, database_url: str, settings: Mapping[str, str]
) -> AsyncIterator[Served]:
    """Run a service."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator", "--port", "0"),
        *("--data", str(data_dir), "--runtime", runtime),
        env={**os.environ, "DATABASE_URL": database_url, **settings},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        if process.stdout is None:
            raise RuntimeError("the service was started without a pipe")
        async with asyncio.timeout(START_SECONDS):
            line = (await process.stdout.readline()).decode()
        if "http://" not in line:
            raise RuntimeError(f"the service did not start: {line!r}")
        address = line.partition("http://")[2].split()[0]
        yield Served(int(address.rpartition(":")[2].strip("/")), process.kill)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
