"""Real runtimes for tests, each with a data directory and a deployment of its own."""

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import docker
import httpx2
import pytest
from docker.errors import NotFound

from orchestrator.domain.container import Container, ContainerSpec, Limits
from orchestrator.ports import Runtime
from orchestrator.runtimes.bubblewrap import sandbox_problem
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.runtimes.docker_engine import docker_problem
from orchestrator.runtimes.processes import Process, process_of
from orchestrator.runtimes.sandbox import SandboxRuntime
from orchestrator.runtimes.sandbox_record import SandboxRecord
from orchestrator.settings import Transport

IMAGE = os.environ.get("BERTH_AGENT_IMAGE", "berth-agent:0.1.0")
ENGINE_RUNTIME = os.environ.get("BERTH_DOCKER_RUNTIME")
"""Such as `runsc`: the Docker engine's runtime that containers of tests use."""
SANDBOX_UID = 10001
MIB = 2**20
LIMITS = Limits(memory_bytes=512 * MIB, cpus=2.0, pids=128)
STAND_IN = ("python3", "-c", (Path(__file__).parent / "stand_in.py").read_text(encoding="utf-8"))


async def problem_with(kind: str) -> str | None:
    """Why a runtime cannot be tested on this machine."""
    if kind == "docker":
        return await docker_problem(IMAGE, ENGINE_RUNTIME)
    return await sandbox_problem(SANDBOX_UID)


def require(problem: str | None) -> None:
    """Go on only without a problem: skip the test, or fail it where CI=true promises the part."""
    if problem is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and this cannot be tested: {problem}")
    pytest.skip(problem)


def new_spec(limits: Limits = LIMITS) -> ContainerSpec:
    """A container that nobody else has."""
    workspace_id = uuid.uuid4().hex[:16]
    return ContainerSpec(f"repo-{workspace_id}", workspace_id, limits, {"berth.test": "yes"})


@dataclass(frozen=True, slots=True)
class Said:
    """What a program run inside a container did."""

    code: int
    out: str
    err: str


async def inside(container: Container, program: str) -> Said:
    """Run a Python program in a container whose worker is the stand-in."""
    uds = container.endpoint.uds
    transport = httpx2.AsyncHTTPTransport(uds=None if uds is None else str(uds))
    async with httpx2.AsyncClient(
        transport=transport, base_url=container.endpoint.url, timeout=60
    ) as client:
        answer = (await client.post("/", content=program.encode())).json()
    return Said(answer["code"], answer["out"], answer["err"])


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait for a condition, at most so long."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


@dataclass(slots=True)
class Bench:
    """Makes runtimes of one kind and cleans up after them."""

    kind: str
    deployment: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:8]}")
    data_dir: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="berth-")))
    engine_runtime: str | None = ENGINE_RUNTIME
    _made: list[Runtime] = field(default_factory=list)
    _deployments: list[str] = field(default_factory=list)

    def make(
        self,
        *,
        deployment: str | None = None,
        agent_command: Sequence[str] | None = STAND_IN,
        start_timeout_seconds: float = 60.0,
        transport: Transport = Transport.SOCKET,
    ) -> Runtime:
        """A runtime; two with equal arguments stand for two starts of one orchestrator."""
        deployment = deployment or self.deployment
        runtime: Runtime
        if self.kind == "docker":
            runtime = DockerRuntime(
                self.data_dir,
                image=IMAGE,
                deployment=deployment,
                transport=transport,
                start_timeout_seconds=start_timeout_seconds,
                agent_command=agent_command,
                engine_runtime=self.engine_runtime,
            )
        else:
            runtime = SandboxRuntime(
                self.data_dir,
                deployment=deployment,
                uid=SANDBOX_UID,
                start_timeout_seconds=start_timeout_seconds,
                agent_command=agent_command,
            )
        self._made.append(runtime)
        self._deployments.append(deployment)
        return runtime

    async def worker(self, name: str) -> Process:
        """The worker's process as this machine sees it."""
        if self.kind == "docker":
            client = docker.from_env()
            try:
                first = client.api.inspect_container(f"{name}.{self.deployment}")["State"]["Pid"]
            finally:
                client.close()
        else:
            directory = self.data_dir / "sandboxes" / f"{name}.{self.deployment}"
            record = SandboxRecord.read(directory / "state.json")
            assert record is not None
            first = record.pid
        init = process_of(first)
        assert init is not None
        (worker,) = init.children()
        return worker

    def has_leftovers(self, name: str) -> bool:
        """True if anything of a container is left on this machine, its work included."""
        qualified = f"{name}.{self.deployment}"
        if any(self.data_dir.rglob(f"*{qualified}*")):
            return True
        if self.kind != "docker":
            return any(Path("/sys/fs/cgroup").glob(f"*/berth/{self.deployment}-*/{qualified}"))
        client = docker.from_env()
        try:
            containers = client.containers.list(all=True, filters={"name": qualified})
            volumes = client.volumes.list(filters={"name": qualified})
        finally:
            client.close()
        return bool(containers or volumes)

    def rests(self) -> list[str]:
        """All that is left of containers of this deployment, whatever their names."""
        mark = f"*.{self.deployment}"
        found = [str(path) for path in self.data_dir.rglob(mark)]
        groups = Path("/sys/fs/cgroup")
        found += [str(path) for path in groups.glob(f"*/berth/{self.deployment}-*/{mark}")]
        if self.kind == "docker":
            client = docker.from_env()
            try:
                label = f"berth.deployment={self.deployment}"
                listed = client.containers.list(all=True, filters={"label": label})
                found += [str(each.name) for each in listed]
                found += [str(each.name) for each in client.volumes.list(filters={"label": label})]
            finally:
                client.close()
        return found

    async def clean(self) -> None:
        """Remove all that the runtimes made."""
        for deployment in dict.fromkeys((self.deployment, *self._deployments)):
            runtime = self.make(deployment=deployment)
            for container in await runtime.list():
                await runtime.remove(container.name)
        for runtime in self._made:
            await runtime.close()
        self._remove_docker_rests()
        for pattern in (f"berth/{self.deployment}-*", f"*/berth/{self.deployment}-*"):
            for group in Path("/sys/fs/cgroup").glob(pattern):
                group.rmdir()
        shutil.rmtree(self.data_dir)

    def _remove_docker_rests(self) -> None:
        if self.kind != "docker":
            return
        client = docker.from_env()
        try:
            for volume in client.volumes.list(filters={"name": self.deployment}):
                volume.remove()
            for deployment in {self.deployment, *self._deployments}:
                try:  # containers that are reached by TCP have a network
                    client.networks.get(f"berth-{deployment}").remove()
                except NotFound:
                    continue
        finally:
            client.close()
