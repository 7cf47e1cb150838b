"""Real worker processes for tests."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from orchestrator.domain.container import Container, ContainerState, Endpoint

KEY = "k" * 32


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker that answers."""

    process: "subprocess.Popen[bytes]"
    directory: Path
    endpoint: Endpoint
    started_in: float

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def workspace(self) -> Path:
        return self.directory / "workspace"

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return (self.directory / "log").read_text()

    @property
    def container(self) -> Container:
        """The worker as the orchestrator knows it."""
        return container_at(self.endpoint)

    def client(self, key: str | None = KEY) -> httpx2.AsyncClient:
        """A client that sends this key."""
        return httpx2.AsyncClient(
            transport=transport(self.endpoint),
            base_url=self.endpoint.url,
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=60,
        )

    async def ended(self, seconds: float) -> int:
        """Its exit code, waited for at most so long."""
        return await asyncio.to_thread(self.process.wait, seconds)


def container_at(endpoint: Endpoint) -> Container:
    """A container whose worker is at an endpoint."""
    now = datetime.now(UTC)
    return Container(
        "repo-test", "test", "test", ContainerState.RUNNING, endpoint, now, "fingerprint"
    )


def transport(endpoint: Endpoint) -> httpx2.AsyncHTTPTransport:
    return httpx2.AsyncHTTPTransport(uds=None if endpoint.uds is None else str(endpoint.uds))


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose path is short enough for a socket in it."""
    directory = Path(tempfile.mkdtemp(prefix="bw-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@asynccontextmanager
async def worker_process(
    directory: Path,
    *,
    tcp: bool = False,
    python: Sequence[str] = (sys.executable,),
    environment: Mapping[str, str] | None = None,
    cwd: Path = Path("/"),
) -> AsyncIterator[WorkerProcess]:
    """A worker on a workspace in a directory; killed at the end if it still runs.

    Args:
        directory: Holds the workspace, the socket and the log.
        tcp: Listen on loopback instead of a socket.
        python: The command that runs Python.
        environment: On top of an environment that has little more than PATH.
        cwd: Where it starts.
    """
    endpoint, listen = _loopback() if tcp else _socket(directory)
    variables = {
        "PATH": os.environ["PATH"],
        "BERTH_WORKSPACE": str(directory / "workspace"),
        "PYTHONDONTWRITEBYTECODE": "1",
        **listen,
        **(environment or {}),
    }
    with (directory / "log").open("ab") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*python, "-P", "-m", "agent"],
            env=variables, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        await _answers(process, endpoint, directory / "log")
        yield WorkerProcess(process, directory, endpoint, time.perf_counter() - began)
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


def _socket(directory: Path) -> tuple[Endpoint, dict[str, str]]:
    path = directory / "socket"
    return Endpoint(path, "http://worker"), {"BERTH_WORKER_SOCKET": str(path)}


def _loopback() -> tuple[Endpoint, dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listen = {"BERTH_WORKER_HOST": "127.0.0.1", "BERTH_WORKER_PORT": str(port)}
    return Endpoint(None, f"http://127.0.0.1:{port}"), listen


async def _answers(process: "subprocess.Popen[bytes]", endpoint: Endpoint, log: Path) -> None:
    async with (
        asyncio.timeout(60),
        httpx2.AsyncClient(transport=transport(endpoint), base_url=endpoint.url) as client,
    ):
        while True:
            assert process.poll() is None, log.read_text()
            try:
                answer = await client.get("/health")
            except httpx2.TransportError:
                await asyncio.sleep(0.005)
            else:
                answer.raise_for_status()
                return
