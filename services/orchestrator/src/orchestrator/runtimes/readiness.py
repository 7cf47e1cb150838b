"""Whether a worker answers, and waiting until it does."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from urllib.parse import urlsplit

from orchestrator.domain.container import HANG_SECONDS, Endpoint
from orchestrator.errors import ContainerStartFailed
from orchestrator.unix_socket import pinned_socket

START_SECONDS = 60.0  # a machine under load is slow to start Python
PROBE_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.003
LONGEST_PAUSE_SECONDS = 0.025
PAUSE_GROWTH = 1.3
LOOK_SECONDS = 0.1
MAX_ANSWER_BYTES = 64 * 1024

_REQUEST = b"GET /health HTTP/1.0\r\nHost: worker\r\nConnection: close\r\n\r\n"


class Readiness(StrEnum):
    """How waiting for a worker ended."""

    READY = "ready"
    ENDED = "ended"
    SILENT = "silent"


async def is_healthy(endpoint: Endpoint, timeout_seconds: float = PROBE_SECONDS) -> bool:
    """True if the worker answers `GET /health` with 200 in time."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _ask(endpoint)
    except OSError:  # TimeoutError is one
        return False


async def is_responsive(
    endpoint: Endpoint, timeout_seconds: float, is_alive: Callable[[], Awaitable[bool]]
) -> bool:
    """True if a worker that was ready before still answers, now or a little later.

    One that has died is not waited for: `is_alive` says so, as in `wait_until_healthy`.
    """
    seconds = min(timeout_seconds, HANG_SECONDS)
    return await wait_until_healthy(endpoint, seconds, is_alive) is Readiness.READY


async def wait_until_healthy(
    endpoint: Endpoint, timeout_seconds: float, is_alive: Callable[[], Awaitable[bool]]
) -> Readiness:
    """Ask the worker until it answers, its process is gone or the time is over.

    Args:
        endpoint: Where the worker will listen.
        timeout_seconds: Longest time to wait.
        is_alive: Whether the worker's process or container still runs; asked now and then.
    """
    clock = asyncio.get_running_loop().time
    pause, next_look = FIRST_PAUSE_SECONDS, clock() + LOOK_SECONDS
    try:
        async with asyncio.timeout(timeout_seconds):
            while not await is_healthy(endpoint):
                if clock() >= next_look:
                    if not await is_alive():
                        return Readiness.ENDED
                    next_look = clock() + LOOK_SECONDS
                await asyncio.sleep(pause)
                pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
    except TimeoutError:
        return Readiness.SILENT
    return Readiness.READY


def start_failure(
    name: str, readiness: Readiness, timeout_seconds: float, log: str
) -> ContainerStartFailed:
    """The error for a worker that did not become ready; it ends with the worker's log."""
    what = (
        "ended before it answered"
        if readiness is Readiness.ENDED
        else f"did not answer within {timeout_seconds:g} s"
    )
    return ContainerStartFailed(
        f"The worker in {name} {what}. Its log ends:\n{log.strip() or '(empty)'}", name=name
    )


async def _ask(endpoint: Endpoint) -> bool:
    reader, writer = await _connect(endpoint)
    try:
        writer.write(_REQUEST)
        await writer.drain()
        answer = await reader.read(MAX_ANSWER_BYTES)
    finally:
        writer.close()
    status = answer.split(b"\r\n", 1)[0].split(b" ")
    return status[1:2] == [b"200"]


async def _connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if endpoint.uds is not None:
        with pinned_socket(str(endpoint.uds)) as path:
            return await asyncio.open_unix_connection(path)
    url = urlsplit(endpoint.url)
    return await asyncio.open_connection(url.hostname, url.port)
