"""What acts on containers, put together from real parts."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.support.fleet import Member
from tests.support.runtimes import IMAGE, LIMITS, SANDBOX_UID, Bench

from orchestrator.domain.budget import Budget
from orchestrator.domain.container import Container, ContainerState, Reuse
from orchestrator.domain.idle import IdleLimits
from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.task import NewTask, StartPoint
from orchestrator.domain.workspace import POOL_PREFIX, Workspace, workspace_of
from orchestrator.flow.adopt import Adopt
from orchestrator.flow.lease import Lease, Leased
from orchestrator.flow.occupancy import Occupancy
from orchestrator.flow.pool import Pool
from orchestrator.flow.reap import MayRemove, Reaper, ReaperParts, patches_are_kept
from orchestrator.flow.shares import LeaseShares
from orchestrator.ports import Runtime
from orchestrator.storage.postgres import PostgresTaskStore
from orchestrator.workers.client import HttpWorkers

US, THEM = "executor-1", "executor-2"
COMMIT = "0123456789" * 4

KILLED = """
import asyncio, os, pathlib, signal, sys
kind, data_dir, deployment, image, name, victim, method, when = sys.argv[1:]
from orchestrator.domain.container import ContainerSpec, Limits
from orchestrator.flow.pool import Pool
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.runtimes.docker_objects import DockerObjects
from orchestrator.runtimes.sandbox import SandboxRuntime
from orchestrator.runtimes.sandbox_store import SandboxStore
from orchestrator.workers.client import HttpWorkers
LIMITS = Limits({memory}, {cpus}, {pids})
KINDS = dict(DockerObjects=DockerObjects, SandboxStore=SandboxStore, HttpWorkers=HttpWorkers,
             DockerRuntime=DockerRuntime, SandboxRuntime=SandboxRuntime)
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
async def main():
    path = pathlib.Path(data_dir)
    if kind == "docker":
        runtime = DockerRuntime(path, image=image, deployment=deployment)
    else:
        runtime = SandboxRuntime(path, deployment=deployment, uid={uid})
    pool = Pool(runtime=runtime, workers=HttpWorkers(), limits=LIMITS, size=1)
    if name:
        await pool.fill()
    cls = KINDS[victim]
    right = getattr(cls, method)
    if asyncio.iscoroutinefunction(right):
        async def wrong(*args, **named):
            if when == "after":
                await right(*args, **named)
            die()
    else:
        def wrong(*args, **named):
            if when == "after":
                right(*args, **named)
            die()
    setattr(cls, method, wrong)
    if name:
        await pool.bind(ContainerSpec(name, name[5:], LIMITS))
    else:
        await pool.fill()
asyncio.run(main())
""".replace("{memory}", str(LIMITS.memory_bytes)).replace("{cpus}", str(LIMITS.cpus))
KILLED = KILLED.replace("{pids}", str(LIMITS.pids)).replace("{uid}", str(SANDBOX_UID))


@dataclass(slots=True)
class TestClock:
    """Time that passes when it is told to."""

    __test__ = False
    later: timedelta = timedelta()

    def now(self) -> datetime:
        """The time."""
        return datetime.now(UTC) + self.later

    def monotonic(self) -> float:
        """Seconds."""
        return asyncio.get_running_loop().time() + self.later.total_seconds()


@dataclass(slots=True)
class Household:
    """One orchestrator's parts that act on containers; `later` stands for its next start."""

    bench: Bench
    tasks: PostgresTaskStore
    member: Member
    runtime: Runtime
    occupancy: Occupancy = field(default_factory=Occupancy)
    clock: TestClock = field(default_factory=TestClock)
    leased: Mapping[str, str] = field(default_factory=dict)
    shares: LeaseShares = field(init=False)

    def __post_init__(self) -> None:
        self.shares = LeaseShares(self.member.leases, asyncio.Event())

    async def leases(self) -> Mapping[str, str]:
        """The live leases."""
        return self.leased

    def pool(self, size: int) -> Pool:
        """A warm pool."""
        return Pool(runtime=self.runtime, workers=HttpWorkers(), limits=LIMITS, size=size)

    def lease(self, pool: Pool | None = None) -> Lease:
        """The way to containers."""
        pool = pool or self.pool(0)
        return Lease(
            runtime=self.runtime,
            workers=HttpWorkers(),
            tasks=self.tasks,
            limits=LIMITS,
            leases=self.member.leases,
            shares=self.shares,
            occupancy=self.occupancy,
            bind=pool.bind,
        )

    @asynccontextmanager
    async def hold(self, workspace: Workspace, pool: Pool | None = None) -> AsyncIterator[Leased]:
        """The container of a workspace, as a task has it."""
        lease = self.lease(pool)
        async with (
            lease.taken(workspace, uuid.uuid4().hex) as generation,
            lease.hold(workspace, generation) as leased,
        ):
            yield leased

    def reaper(self, limits: IdleLimits, may_remove: MayRemove = patches_are_kept) -> Reaper:
        """A reaper."""
        parts = ReaperParts(
            self.runtime, self.occupancy, self.tasks, self.leases, self.clock, US, may_remove
        )
        return Reaper(parts, limits)

    async def adopt(self) -> None:
        """What happens at a start."""
        await Adopt(
            runtime=self.runtime,
            workers=HttpWorkers(),
            tasks=self.tasks,
            occupancy=self.occupancy,
            leases=self.leases,
            executor=US,
        )()

    def later(self) -> "Household":
        """The next process on the same data."""
        runtime = self.bench.make(agent_command=None)
        return Household(
            self.bench, self.tasks, self.member, runtime, clock=self.clock, leased=self.leased
        )

    async def state(self, workspace: Workspace) -> ContainerState | None:
        """The state of a workspace's container; None if there is none."""
        found = await self.runtime.poll(workspace.container_name)
        return None if found is None else found.state

    async def use(self, workspace: Workspace) -> Reuse:
        """Use a workspace's container as a task does; returns how it was brought up."""
        async with self.hold(workspace) as leased:
            await leased.worker.repositories()
            return leased.container.how

    async def names(self) -> set[str]:
        """The containers there are."""
        return {each.name for each in await self.runtime.list()}

    async def pooled(self) -> list[Container]:
        """The containers that nobody owns."""
        return [each for each in await self.runtime.list() if each.name.startswith(POOL_PREFIX)]

    async def pid(self, name: str) -> int:
        """The number of a container's worker on this machine, which tells it from a later one."""
        found = await self.runtime.poll(name)
        assert found is not None
        client = HttpWorkers()
        assert await client.is_healthy(found)
        return (await self.bench.worker(name)).pid

    async def begin(self, workspace: Workspace) -> str:
        """Record a task that is not finished; returns its id."""
        start = tuple(StartPoint(each.name, COMMIT, "main") for each in workspace.repositories)
        task = NewTask(uuid.uuid4().hex, "work", workspace, start, (), Budget(5, 100, 10.0))
        await self.tasks.add(task, self.bench.kind)
        return task.id

    async def lose(self, name: str) -> None:
        """Have a container vanish without its work, as when somebody else removes it."""
        await self.runtime.stop(name)
        qualified = f"{name}.{self.bench.deployment}"
        if self.bench.kind == "docker":
            command = ("docker", "rm", qualified)
            await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        else:
            (self.bench.data_dir / "sandboxes" / qualified / "state.json").unlink()

    def kill_at(self, owner: str, method: str, when: str, name: str = "") -> None:
        """Have another process bind or, without a name, fill a pool, and kill itself midway."""
        place = (str(self.bench.data_dir), self.bench.deployment, IMAGE)
        command = (sys.executable, "-c", KILLED, self.bench.kind, *place, name)
        done = subprocess.run(
            [*command, owner, method, when],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=dict(os.environ),
        )
        assert done.returncode == -signal.SIGKILL, done.stderr


def some_workspace() -> Workspace:
    """A workspace that nobody else has."""
    return workspace_of([parse_repository_url(f"https://example.org/{uuid.uuid4().hex}")])


def names_of(workspaces: Sequence[Workspace]) -> set[str]:
    """Their containers."""
    return {each.container_name for each in workspaces}
