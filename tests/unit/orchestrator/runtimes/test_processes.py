"""Processes that are told apart from later ones."""

import asyncio
import os
import signal
from dataclasses import replace

from orchestrator.runtimes.processes import end_process, process_of


async def spawn(script: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


def test_we_are_alive_and_nobody_has_a_number_beyond_the_largest() -> None:
    own = process_of(os.getpid())
    assert own is not None
    assert own.is_alive()
    assert process_of(2**22 + 1) is None


async def test_another_start_time_is_another_process() -> None:
    child = await spawn("echo; exec sleep 600")
    found = process_of(child.pid)
    assert found is not None
    stranger = replace(found, started=found.started - 1)
    assert not stranger.is_alive()
    stranger.send(signal.SIGKILL)
    await end_process(stranger, grace_seconds=0)
    assert found.is_alive()
    await end_process(found, grace_seconds=0)
    await child.communicate()
    assert child.returncode == -signal.SIGKILL
    found.send(signal.SIGKILL)


async def test_a_name_with_spaces_and_parentheses_is_no_obstacle() -> None:
    child = await asyncio.create_subprocess_exec(
        "python3",
        "-c",
        "import time; open('/proc/self/comm', 'w').write('a) R (b c'); print(flush=True); "
        "time.sleep(60)",
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    await child.stdout.readline()
    found = process_of(child.pid)
    assert found is not None
    assert found.is_alive()
    child.kill()
    await child.communicate()
    assert not found.is_alive()


async def test_children_are_told_to_end_first() -> None:
    script = "sh -c 'trap \"echo told; exit\" TERM; echo; while :; do sleep 0.01; done'; echo over"
    parent = await spawn(script)
    found = process_of(parent.pid)
    assert found is not None
    (child,) = found.children()
    await end_process(found, grace_seconds=5)
    assert not child.is_alive()
    assert parent.stdout is not None
    assert await parent.stdout.read() == b"told\nover\n"
    assert await parent.wait() == 0


async def test_a_process_whose_child_ignores_it_is_killed() -> None:
    parent = await spawn("sh -c 'trap \"\" TERM; echo; exec sleep 600'; echo over")
    found = process_of(parent.pid)
    assert found is not None
    (child,) = found.children()
    await end_process(found, grace_seconds=0.05)
    child.send(signal.SIGKILL)  # asyncio waits for a process until its pipes are closed too
    assert await parent.wait() == -signal.SIGKILL
    assert parent.stdout is not None
    assert await parent.stdout.read() == b""
