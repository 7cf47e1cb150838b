"""Waiting for a worker."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from orchestrator.domain.container import Endpoint
from orchestrator.runtimes.readiness import (
    Readiness,
    is_healthy,
    is_responsive,
    start_failure,
    wait_until_healthy,
)

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def answering(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    return talk


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def alive() -> bool:
    return True


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(uds=tmp_path / "s", url="http://worker")


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (OK, True),
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1 500 200\r\n\r\n", False),
        (b"200", False),
        (b"", False),
    ],
)
async def test_only_status_200_is_healthy(endpoint: Endpoint, answer: bytes, healthy: bool) -> None:
    async with await asyncio.start_unix_server(answering(answer), str(endpoint.uds)):
        assert await is_healthy(endpoint) is healthy


async def test_a_worker_behind_a_port_is_reached() -> None:
    async with await asyncio.start_server(answering(OK), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await is_healthy(Endpoint(uds=None, url=f"http://127.0.0.1:{port}"))


async def test_silence_is_not_healthy(endpoint: Endpoint) -> None:
    async with await asyncio.start_unix_server(silent, str(endpoint.uds)):
        assert not await is_healthy(endpoint, timeout_seconds=0.05)
        assert not await is_responsive(endpoint, 0.05, alive)


async def test_waiting_ends_when_the_worker_listens(endpoint: Endpoint) -> None:
    waiting = asyncio.create_task(wait_until_healthy(endpoint, 5, alive))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    async with await asyncio.start_unix_server(answering(OK), str(endpoint.uds)):
        assert await waiting is Readiness.READY


async def test_waiting_ends_when_the_process_is_gone(endpoint: Endpoint) -> None:
    async def gone() -> bool:
        return False

    async with asyncio.timeout(30):
        assert await wait_until_healthy(endpoint, 60, gone) is Readiness.ENDED


async def test_a_worker_that_has_died_is_not_waited_for(endpoint: Endpoint) -> None:
    async def gone() -> bool:
        return False

    async with asyncio.timeout(30):
        assert not await is_responsive(endpoint, 60, gone)


async def test_waiting_ends_with_the_time(endpoint: Endpoint) -> None:
    assert await wait_until_healthy(endpoint, 0.05, alive) is Readiness.SILENT


def test_the_failure_says_what_happened_and_ends_with_the_log() -> None:
    silence = start_failure("repo-1", Readiness.SILENT, 30.0, "one\ntwo\n").detail
    assert "repo-1 did not answer within 30 s" in silence
    assert silence.endswith("one\ntwo")
    assert start_failure("repo-1", Readiness.ENDED, 30.0, " \n").detail.endswith("(empty)")
