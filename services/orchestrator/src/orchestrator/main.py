"""The composition root: the only place that names implementations of ports."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from orchestrator.agent import Agent
from orchestrator.api.services import ModelInfo, Services
from orchestrator.clock import SystemClock
from orchestrator.data_directory import executor_id, held
from orchestrator.domain.budget import Budget
from orchestrator.domain.container import Container, ContainerState, Limits
from orchestrator.domain.egress import Allowlist, EgressLimits, HostRule, PackageSources, parse_rule
from orchestrator.domain.fleet import Identity
from orchestrator.durability.dbos_engine import DbosEngine
from orchestrator.errors import (
    BerthError,
    ConfigurationError,
    DatabaseUnavailable,
    EgressRequestInvalid,
    RuntimeFailure,
)
from orchestrator.flow.accept import Accept
from orchestrator.flow.attach import Attach
from orchestrator.flow.compare import Compare
from orchestrator.flow.continuation import Continue, Say
from orchestrator.flow.fleet import Fleet
from orchestrator.flow.fork import Fork
from orchestrator.flow.inherit import Inherit
from orchestrator.flow.inputs import Inputs
from orchestrator.flow.lease import Lease
from orchestrator.flow.recall import Recall
from orchestrator.flow.recover import recover
from orchestrator.flow.run_task import RunTask, TaskParts
from orchestrator.flow.running import RunningTasks
from orchestrator.flow.shares import LeaseShares
from orchestrator.flow.submit import Submit
from orchestrator.flow.supply import Supply
from orchestrator.flow.uploads import Uploads
from orchestrator.gateway.address import resolve
from orchestrator.gateway.egress import EgressGateway
from orchestrator.gateway.egress_address import EgressAddresses
from orchestrator.gateway.egress_policy import EgressPolicy
from orchestrator.gateway.egress_upstream import Upstream
from orchestrator.gateway.mirrors import GitRepositories
from orchestrator.gateway.package_sources import find_sources
from orchestrator.instructions import INSTRUCTIONS
from orchestrator.model.embedded import EmbeddedModel
from orchestrator.model.openai_client import OpenAIModel, endpoint_url
from orchestrator.ports import ObjectStore, Runtime
from orchestrator.runtimes.bubblewrap import sandbox_problem
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.runtimes.docker_engine import docker_problem
from orchestrator.runtimes.sandbox import SandboxRuntime
from orchestrator.runtimes.selection import choose
from orchestrator.settings import RuntimeChoice, Settings
from orchestrator.storage.objects.files import FileObjectStore
from orchestrator.storage.objects.gcs import GcsObjectStore
from orchestrator.storage.postgres.cancels import PostgresCancels
from orchestrator.storage.postgres.embedded import EmbeddedPostgres
from orchestrator.storage.postgres.events import PostgresEventLog
from orchestrator.storage.postgres.executors import PostgresExecutors
from orchestrator.storage.postgres.leases import PostgresLeases
from orchestrator.storage.postgres.live_text import PostgresLiveText
from orchestrator.storage.postgres.migrations import migrate
from orchestrator.storage.postgres.pool import Database
from orchestrator.storage.postgres.tasks import PostgresTaskStore
from orchestrator.version import VERSION
from orchestrator.workers.client import HttpWorkers

VITAL_CONNECTIONS = 2

log = structlog.get_logger(__name__)


@asynccontextmanager
async def running(settings: Settings, *, keep_containers: bool = True) -> AsyncIterator[Services]:
    """Everything the service needs, started; stopped again at the end, in reverse order.

    Args:
        settings: All settings.
        keep_containers: False removes the deployment's containers at the end, with their work.

    Raises:
        BerthError: A part cannot start; the sentence says what to do.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(held(settings.data_dir))
        metadata, model_info, runtime, egress = await _start_parts(settings, stack)
        tasks, events = metadata.tasks, metadata.events
        info = await runtime.info()
        log.info("runtime_chosen", runtime=info.name, reason=info.reason,
                 not_enforced=info.not_enforced)  # fmt: skip
        model = OpenAIModel(
            model_info.url, settings.llm_api_key.get_secret_value(), settings.llm_model
        )
        stack.push_async_callback(model.close)
        repositories = _repositories(settings)
        objects = await _objects(settings, stack)
        clock = SystemClock()
        running_tasks = RunningTasks()
        shares = LeaseShares(metadata.leases, running_tasks.stopping)
        # A running task waits out an outage of Postgres; a caller is told of it.
        patient = metadata.database.patient()
        lease = Lease(
            runtime=runtime,
            workers=HttpWorkers(),
            tasks=PostgresTaskStore(patient),
            limits=_limits(settings),
            leases=metadata.leases,
            shares=shares,
        )
        await metadata.executors.register()
        # After our containers have ended: until then nobody else may use them.
        stack.push_async_callback(_resign, metadata.executors)
        end_containers = _stop_containers if keep_containers else _remove_containers
        stack.push_async_callback(end_containers, lease, runtime)
        inputs = Inputs(objects)
        engine, agent = _engine(settings, metadata), _agent(settings)
        recall = Recall(tasks, engine, agent.repeats_named)
        run_task = RunTask(
            TaskParts(
                lease=lease,
                supply=Supply(repositories, Inherit(tasks)),
                egress=egress,
                inputs=inputs,
                running=running_tasks,
                model=model,
                tasks=PostgresTaskStore(patient),
                events=PostgresEventLog(patient),
                live_text=metadata.live_text,
                clock=clock,
                agent=agent,
                recall=recall,
                tool_output_chars=settings.tool_output_chars,
            )
        )
        fleet = Fleet(
            executor_id=metadata.identity.executor_id,
            executors=metadata.executors,
            shares=shares,
            running=running_tasks,
            engine=engine,
            heartbeat_seconds=settings.heartbeat_seconds,
            replaced=partial(signal.raise_signal, signal.SIGTERM),
        )
        await fleet.beat()
        stack.callback(asyncio.create_task(fleet.live()).cancel)
        await engine.start(run_task)
        stack.push_async_callback(engine.stop)
        stack.push_async_callback(running_tasks.stop)
        await recover(tasks, engine, runtime)
        for duty in (running_tasks.heed(metadata.cancels.follow()), fleet.look_after_others()):
            stack.callback(asyncio.create_task(duty).cancel)
        accept = Accept(inputs=inputs, tasks=tasks, events=events, engine=engine, runtime=info.name)
        attach, largest_budget = Attach(objects, repositories), _largest_budget(settings)
        go_on = Continue(tasks=tasks, attach=attach, accept=accept, largest_budget=largest_budget)
        yield Services(
            version=VERSION,
            executor_id=metadata.identity.executor_id,
            submit=Submit(
                repositories=repositories,
                attach=attach,
                accept=accept,
                go_on=go_on,
                largest_budget=largest_budget,
            ),
            say=Say(tasks, go_on),
            fork=Fork(tasks=tasks, recall=recall, accept=accept, largest_budget=largest_budget),
            compare=Compare(tasks, lease),
            running=running_tasks,
            uploads=Uploads(objects),
            tasks=tasks,
            events=events,
            live_text=metadata.live_text,
            runtime=runtime,
            runtime_info=info,
            model=model_info,
            max_query_chars=settings.max_query_chars,
            max_file_bytes=settings.max_file_bytes,
        )


@dataclass(frozen=True, slots=True)
class _Metadata:
    """What lies in Postgres."""

    database: Database
    tasks: PostgresTaskStore
    events: PostgresEventLog
    live_text: PostgresLiveText
    cancels: PostgresCancels
    identity: Identity
    executors: PostgresExecutors
    leases: PostgresLeases


async def _start_parts(
    settings: Settings, stack: AsyncExitStack
) -> tuple[_Metadata, ModelInfo, Runtime, EgressGateway]:
    """Start what takes time, side by side: the slowest part sets the pace."""
    try:
        async with asyncio.TaskGroup() as group:
            metadata = group.create_task(_metadata(settings, stack))
            model = group.create_task(_model_endpoint(settings, stack))
            runtime = group.create_task(_runtime(settings, stack))
            egress = group.create_task(_egress(settings))
    except* BerthError as failures:
        raise failures.exceptions[0] from None
    return metadata.result(), model.result(), runtime.result(), egress.result()


async def _runtime(settings: Settings, stack: AsyncExitStack) -> Runtime:
    image = settings.agent_image or f"berth-agent:{VERSION}"
    selection = await choose(
        settings.runtime,
        docker=partial(docker_problem, image),
        sandbox=partial(sandbox_problem, settings.sandbox_uid),
    )
    runtime: Runtime
    if selection.choice is RuntimeChoice.DOCKER:
        runtime = DockerRuntime(
            settings.data_dir,
            image=image,
            deployment=settings.deployment,
            transport=settings.transport,
            start_timeout_seconds=settings.start_timeout_seconds,
            reason=selection.reason,
        )
    else:
        runtime = SandboxRuntime(
            settings.data_dir,
            deployment=settings.deployment,
            uid=settings.sandbox_uid,
            start_timeout_seconds=settings.start_timeout_seconds,
            reason=selection.reason,
        )
    stack.push_async_callback(runtime.close)
    return runtime


async def _objects(settings: Settings, stack: AsyncExitStack) -> ObjectStore:
    if settings.gcs_bucket is None:
        files = FileObjectStore(settings.data_dir / "objects")
        await files.clean()
        return files
    bucket = GcsObjectStore(settings.gcs_bucket)
    stack.push_async_callback(bucket.close)
    await bucket.check()
    return bucket


async def _metadata(settings: Settings, stack: AsyncExitStack) -> _Metadata:
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
    else:
        embedded = EmbeddedPostgres(settings.data_dir)
        stack.push_async_callback(embedded.stop)
        url = await embedded.start()
    await migrate(url)
    database = await Database.open(url)
    stack.push_async_callback(database.close)
    events = PostgresEventLog(database)
    stack.push_async_callback(events.close)
    live_text = PostgresLiveText(database, events.notifications)
    stack.push_async_callback(live_text.close)
    # Heartbeats have connections of their own: they must not queue behind the work.
    vital = await Database.open(url, max_size=VITAL_CONNECTIONS)
    stack.push_async_callback(vital.close)
    identity = Identity(executor_id(settings.data_dir), secrets.token_hex(8))
    executors = PostgresExecutors(vital, identity, settings.heartbeat_seconds, SystemClock())
    return _Metadata(
        database=database,
        tasks=PostgresTaskStore(database),
        events=events,
        live_text=live_text,
        cancels=PostgresCancels(database),
        identity=identity,
        executors=executors,
        leases=PostgresLeases(database, executors),
    )


def _engine(settings: Settings, metadata: _Metadata) -> DbosEngine:
    return DbosEngine(
        metadata.database.address.dsn,
        executor_id=metadata.identity.executor_id,
        per_workspace=settings.max_workspace_tasks,
        at_once=settings.max_running_tasks,
    )


async def _model_endpoint(settings: Settings, stack: AsyncExitStack) -> ModelInfo:
    if settings.gpt_oss_url is not None:
        return ModelInfo(endpoint_url(settings.gpt_oss_url), settings.llm_model, scripted=False)
    embedded = EmbeddedModel()
    stack.push_async_callback(embedded.stop)
    url = await embedded.start()
    log.warning("scripted_model", reason="GPT_OSS_URL is not set: answers come from a script")
    return ModelInfo(url, settings.llm_model, scripted=True)


def _repositories(settings: Settings) -> GitRepositories:
    return GitRepositories(
        settings.data_dir,
        allow_paths=settings.allow_paths,
        allow_hosts=settings.allow_hosts,
        max_repository_bytes=settings.max_repository_bytes,
        timeout_seconds=settings.git_timeout_seconds,
        max_file_bytes=settings.max_file_bytes,
    )


async def _egress(settings: Settings) -> EgressGateway:
    sources = await find_sources(settings.egress_presets)
    for notice in sources.notices:
        log.warning("egress_preset", detail=notice)
    policy = EgressPolicy(
        Allowlist((*_egress_rules(settings), *sources.rules)),
        EgressAddresses(settings.allow_hosts, resolve),
        sources.credentials,
        Upstream(os.environ),
    )
    limits = EgressLimits(
        task_bytes=settings.egress_task_bytes,
        workspace_bytes=settings.egress_workspace_bytes,
        task_connections=settings.egress_task_connections,
        workspace_connections=settings.egress_workspace_connections,
        idle_seconds=settings.egress_idle_seconds,
    )
    return EgressGateway(policy, limits, sources, await _certificates(settings, sources))


def _egress_rules(settings: Settings) -> tuple[HostRule, ...]:
    try:
        return tuple(parse_rule(text) for text in settings.egress_allow)
    except EgressRequestInvalid as error:
        raise ConfigurationError(f"BERTH_EGRESS_ALLOW: {error.detail}") from None


async def _certificates(settings: Settings, sources: PackageSources) -> bytes | None:
    file = settings.egress_ca_file or sources.certificates
    if file is None:
        return None
    try:
        return await asyncio.to_thread(file.read_bytes)
    except OSError as error:
        raise ConfigurationError(
            f"BERTH_EGRESS_CA_FILE: {file} cannot be read ({error.strerror})."
        ) from error


def _agent(settings: Settings) -> Agent:
    return Agent(
        name="default",
        instructions=INSTRUCTIONS,
        context_tokens=settings.context_tokens,
        model_timeout_seconds=settings.model_timeout_seconds,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        memory_bytes=settings.container_memory_bytes,
        cpus=settings.container_cpus,
        pids=settings.container_pids,
    )


def _largest_budget(settings: Settings) -> Budget:
    return Budget(settings.max_steps, settings.max_tokens, settings.max_seconds)


async def _resign(executors: PostgresExecutors) -> None:
    """Hand over at once; if the database is away, others do without after three heartbeats."""
    try:
        await executors.resign()
    except DatabaseUnavailable as failure:
        log.warning("not_resigned", detail=failure.detail)


async def _stop_containers(lease: Lease, runtime: Runtime) -> None:
    """Stop what we used, and what an orchestrator that was killed here has left running."""
    failures: list[BerthError] = []
    try:
        failures += await lease.stop_all()
        elsewhere = await lease.in_use_elsewhere()
        for container in await runtime.list():
            if _runs_here(container) and container.name not in elsewhere:
                await runtime.stop(container.name)
    except (RuntimeFailure, DatabaseUnavailable) as failure:
        failures.append(failure)
    for each in failures:
        log.error("container_left_running", code=each.code, detail=each.detail)


def _runs_here(container: Container) -> bool:
    # Without its socket under our data directory it is another orchestrator's.
    uds = container.endpoint.uds
    return container.state is ContainerState.RUNNING and uds is not None and uds.exists()


async def _remove_containers(_lease: Lease, runtime: Runtime) -> None:
    for container in await runtime.list():
        await runtime.remove(container.name)
