"""What is logged of what asyncio reports."""

import asyncio
import subprocess
import sys

PROGRAM = """
import asyncio
from orchestrator.logs import configure_logging

def fail():
    raise asyncio.InvalidStateError("told")

async def main():
    configure_logging("info")
    loop, late = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    loop.call_soon(late.set_result, None)
    late.cancel()
    loop.call_soon(fail)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

asyncio.run(main())
"""


async def test_a_socket_that_becomes_ready_in_the_moment_of_a_cancellation_is_no_error() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stderr=subprocess.PIPE
    )
    _, said = await process.communicate()
    lines = said.decode().splitlines()
    assert len(lines) == 1, lines
    assert "fail" in lines[0]
    assert "told" in lines[0]
