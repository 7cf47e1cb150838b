"""Process 1 of a container, as process 1 of a process namespace."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time
from agent.first_process import hide_memory, leave_first_process
hide_memory()
assert os.getpid() == 1
leave_first_process()
assert os.getpid() == 2
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
{rest}
"""
ORPHAN = """
import subprocess
subprocess.run(["sh", "-c", "sleep 0.1 & :"])
deadline = time.monotonic() + 10
while len([p for p in os.listdir("/proc") if p.isdecimal()]) > 2:
    assert time.monotonic() < deadline, "a process is left over"
    time.sleep(0.01)
print("reaped")
"""
WAIT = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready", flush=True)
while True:
    time.sleep(0.05)  # a signal that comes right before a sleep does not end it
"""
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="makes a process namespace as root"
)


async def start(rest: str) -> asyncio.subprocess.Process:
    program = PROGRAM.replace("{rest}", rest)
    return await asyncio.create_subprocess_exec(
        *UNSHARE, sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )


@pytest.mark.parametrize(
    ("rest", "status"), [("", 0), ("sys.exit(5)", 5), ("os.kill(2, 9)", 128 + 9)]
)
async def test_it_ends_as_the_worker_does(rest: str, status: int) -> None:
    process = await start(rest)
    async with asyncio.timeout(60):
        assert await process.wait() == status


async def test_it_reaps_what_others_leave() -> None:
    process = await start(ORPHAN)
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert (out, process.returncode) == (b"reaped\n", 0)


async def test_it_passes_on_the_signal_to_end() -> None:
    process = await start(WAIT)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children), signal.SIGTERM)
        assert await process.wait() == 7
