"""A house to measure in: real database, runtime, mirrors and workers, and a repository."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peer import PEER, PEER_PORT
from orchestrator.clock import SystemClock
from orchestrator.domain.container import Container, Limits
from orchestrator.domain.egress import Allowlist, EgressLimits, PackageSources, parse_rule
from orchestrator.domain.events import NewEvent
from orchestrator.domain.fleet import Identity
from orchestrator.domain.repository import parse_repository_url
from orchestrator.domain.task import NewTask, Task
from orchestrator.domain.workspace import Workspace, workspace_of
from orchestrator.flow.inherit import Inherit
from orchestrator.flow.lease import Lease
from orchestrator.flow.shares import LeaseShares
from orchestrator.flow.supply import Supply
from orchestrator.gateway.address import resolve
from orchestrator.gateway.egress import EgressGateway
from orchestrator.gateway.egress_address import EgressAddresses
from orchestrator.gateway.egress_policy import EgressPolicy
from orchestrator.gateway.egress_terms import same_for_all
from orchestrator.gateway.egress_upstream import Upstream
from orchestrator.gateway.interception import no_interception
from orchestrator.gateway.mirrors import GitRepositories
from orchestrator.ports import Admission, Runtime, Worker
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.runtimes.sandbox import SandboxRuntime
from orchestrator.settings import RuntimeChoice, Settings
from orchestrator.storage.postgres.embedded import EmbeddedPostgres
from orchestrator.storage.postgres.events import PostgresEventLog
from orchestrator.storage.postgres.executors import PostgresExecutors
from orchestrator.storage.postgres.leases import PostgresLeases
from orchestrator.storage.postgres.migrations import migrate
from orchestrator.storage.postgres.pool import Database
from orchestrator.storage.postgres.tasks import PostgresTaskStore
from orchestrator.version import VERSION
from orchestrator.workers.client import HttpWorkers

IMAGE = os.environ.get("BERTH_AGENT_IMAGE", f"berth-agent:{VERSION}")
DEPLOYMENT = "benchmarks"
FILES = 200
IDENTITY = ("-c", "user.name=Berth", "-c", "user.email=berth@localhost")


@dataclass(frozen=True, slots=True)
class House:
    """The parts that a task passes through, as `main` puts them together."""

    runtime: Runtime
    lease: Lease
    leases: PostgresLeases
    generation: int
    supply: Supply
    egress: EgressGateway
    repositories: GitRepositories
    tasks: PostgresTaskStore
    events: PostgresEventLog
    clock: SystemClock
    workspace: Workspace
    settings: Settings
    database_url: str

    def admit(self, container: Container) -> AbstractAsyncContextManager[Admission]:
        """Let a task out of its container; its events are kept nowhere."""
        return self.egress.admit("benchmark", container, _forget)


async def no_past(task: Task, _worker: Worker) -> None:
    """Refuses a task that builds on another."""
    raise RuntimeError(f"no task here builds on another, but one does on {task.id}")


@asynccontextmanager
async def house(directory: Path, choice: RuntimeChoice) -> AsyncIterator[House]:
    """Everything started, on a small repository; containers are removed at the end."""
    settings = Settings()
    repository = make_repository(directory / "repository")
    async with AsyncExitStack() as stack:
        embedded = EmbeddedPostgres(directory / "data")
        stack.push_async_callback(embedded.stop)
        url = await embedded.start()
        await migrate(url)
        database = await Database.open(url)
        stack.push_async_callback(database.close)
        tasks, events = PostgresTaskStore(database), PostgresEventLog(database)
        stack.push_async_callback(events.close)
        runtime = _runtime(directory / "data", choice)
        stack.push_async_callback(_clear, runtime)
        repositories = GitRepositories(
            directory / "data",
            allow_paths=[directory],
            allow_hosts=(),
            max_repository_bytes=settings.max_repository_bytes,
            timeout_seconds=settings.git_timeout_seconds,
            max_file_bytes=settings.max_file_bytes,
        )
        workspace = workspace_of([parse_repository_url(str(repository))])
        identity = Identity("bench", "bench")
        executors = PostgresExecutors(database, identity, settings.heartbeat_seconds, SystemClock())
        await executors.register()
        leases = PostgresLeases(database, executors)
        limits = Limits(
            settings.container_memory_bytes, settings.container_cpus, settings.container_pids
        )
        yield House(
            runtime=runtime,
            lease=Lease(
                runtime=runtime,
                workers=HttpWorkers(),
                tasks=tasks,
                limits=limits,
                leases=leases,
                shares=LeaseShares(leases, asyncio.Event()),
            ),
            leases=leases,
            generation=await leases.acquire(workspace.id),
            supply=Supply(repositories, Inherit(tasks, no_past)),
            egress=_egress(settings),
            repositories=repositories,
            tasks=tasks,
            events=events,
            clock=SystemClock(),
            workspace=workspace,
            settings=settings,
            database_url=database.address.dsn,
        )


def make_repository(path: Path) -> Path:
    """A repository of a few hundred small files."""
    for number in range(FILES):
        file = path / f"package{number % 10}" / f"module{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'"""Module {number}."""\n\nVALUE = {number}\n' * 20)
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "start"]):
        subprocess.run(["git", *IDENTITY, *command], cwd=path, check=True)
    return path


async def add_task(parts: House, task: NewTask) -> None:
    """Record a task, so that its events have something to belong to."""
    await parts.tasks.add(task, "benchmark")


def _egress(settings: Settings) -> EgressGateway:
    limits = EgressLimits(
        task_bytes=2**40,
        workspace_bytes=2**40,
        task_connections=settings.egress_task_connections,
        workspace_connections=settings.egress_workspace_connections,
        idle_seconds=settings.egress_idle_seconds,
    )
    rules = Allowlist([parse_rule(f"{PEER}:{PEER_PORT}")])
    policy = EgressPolicy(rules, EgressAddresses([PEER], resolve), {}, Upstream({}))
    return EgressGateway(policy, same_for_all(limits), PackageSources(), no_interception())


async def _forget(_event: NewEvent) -> None:
    return None


def _runtime(data_dir: Path, choice: RuntimeChoice) -> Runtime:
    if choice is RuntimeChoice.DOCKER:
        return DockerRuntime(data_dir, image=IMAGE, deployment=DEPLOYMENT)
    return SandboxRuntime(data_dir, deployment=DEPLOYMENT)


async def _clear(runtime: Runtime) -> None:
    for container in await runtime.list():
        await runtime.remove(container.name)
    await runtime.close()
