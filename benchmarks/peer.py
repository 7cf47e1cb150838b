"""The one server that containers may reach, in a process of its own."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PEER, PEER_PORT = "127.0.0.2", 18_443
"""Where it listens."""


@asynccontextmanager
async def peer(program: str, *arguments: str) -> AsyncIterator[None]:
    """Run a program that listens there and prints a line once it does.

    Args:
        program: In Python; its arguments begin with host and port.
        arguments: What it is told beside these.

    Raises:
        RuntimeError: It cannot listen.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, PEER, str(PEER_PORT), *arguments, stdout=subprocess.PIPE
    )
    try:
        if process.stdout is None or not await process.stdout.readline():
            raise RuntimeError(f"nothing can listen on {PEER}:{PEER_PORT}")
        yield
    finally:
        process.kill()
        await process.wait()
