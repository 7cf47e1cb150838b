"""The proxy before the Docker engine as a process, and runtimes that go through it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from docker import APIClient
from tests.support.runtimes import IMAGE, STAND_IN, Bench

from orchestrator.ports import Runtime
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.settings import Transport

ENGINE = Path("/var/run/docker.sock")
STOP_SECONDS = 30
CALL_SECONDS = 60


@dataclass(slots=True)
class Proxy:
    """A proxy that runs, and may be stopped."""

    directory: Path
    process: subprocess.Popen[str]

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.directory / "engine.sock"

    @property
    def address(self) -> str:
        """What `DOCKER_HOST` is to be."""
        return f"unix://{self.socket}"

    def log(self) -> list[Mapping[str, object]]:
        """What it logged."""
        text = (self.directory / "log").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def refusals(self) -> list[str]:
        """The reasons of the calls that it did not let through."""
        return [str(each["reason"]) for each in self.log() if "reason" in each]

    def stop(self) -> int:
        """End it; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def remove(self) -> None:
        """End it if it still runs, and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory)


def start_proxy(
    data_dir: Path,
    deployment: str,
    *,
    transport: Transport = Transport.SOCKET,
    engine: Path = ENGINE,
) -> Proxy:
    """Start a proxy and wait until it listens."""
    directory = Path(tempfile.mkdtemp(prefix="berth-proxy-"))
    command = (
        *(sys.executable, "-m", "orchestrator.engine_proxy"),
        *("--listen", str(directory / "engine.sock"), "--engine", str(engine)),
        *("--data", str(data_dir), "--deployment", deployment, "--image", IMAGE),
        *("--transport", transport.value),
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    proxy = Proxy(directory, process)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "listens on" in line, (directory / "log").read_text()
    return proxy


@contextmanager
def running_proxy(data_dir: Path, deployment: str, *, engine: Path = ENGINE) -> Iterator[Proxy]:
    """A proxy that is stopped at the end."""
    proxy = start_proxy(data_dir, deployment, engine=engine)
    try:
        yield proxy
    finally:
        proxy.remove()


@dataclass(slots=True)
class ProxiedBench(Bench):
    """Makes Docker runtimes that reach the engine through a proxy of their deployment."""

    kind: str = "docker"
    proxies: dict[tuple[str, Transport], Proxy] = field(default_factory=dict)

    def make(
        self,
        *,
        deployment: str | None = None,
        agent_command: Sequence[str] | None = STAND_IN,
        start_timeout_seconds: float = 20.0,
        transport: Transport = Transport.SOCKET,
    ) -> Runtime:
        """A runtime, see `Bench.make`."""
        runtime = Bench.make(
            self,
            deployment=deployment,
            agent_command=agent_command,
            start_timeout_seconds=start_timeout_seconds,
            transport=transport,
        )
        assert isinstance(runtime, DockerRuntime)
        proxy = self.proxy(deployment or self.deployment, transport)
        # Not by DOCKER_HOST, for the test itself looks at the engine.
        runtime._engine._client = APIClient(
            proxy.address, version="auto", timeout=CALL_SECONDS, max_pool_size=8
        )
        return runtime

    def proxy(self, deployment: str, transport: Transport = Transport.SOCKET) -> Proxy:
        """The proxy of a deployment."""
        key = (deployment, transport)
        if key not in self.proxies:
            self.proxies[key] = start_proxy(self.data_dir, deployment, transport=transport)
        return self.proxies[key]

    async def clean(self) -> None:
        """Remove all that the runtimes made, and end the proxies."""
        await Bench.clean(self)
        for proxy in self.proxies.values():
            proxy.remove()
