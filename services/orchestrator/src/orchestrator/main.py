"""The composition root: the only place that names implementations of ports."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from orchestrator.agent import Agent
from orchestrator.api.services import ModelInfo, Services
from orchestrator.clock import SystemClock
from orchestrator.data_directory import executor_id, held
from orchestrator.domain.budget import Budget
from orchestrator.domain.container import Limits
from orchestrator.domain.egress import Allowlist, EgressLimits, HostRule, PackageSources, parse_rule
from orchestrator.domain.fleet import Identity
from orchestrator.domain.idle import IdleLimits
from orchestrator.domain.task import Task
from orchestrator.durability.dbos_engine import DbosEngine
from orchestrator.errors import (
    BerthError,
    ConfigurationError,
    DatabaseUnavailable,
    EgressRequestInvalid,
)
from orchestrator.flow.accept import Accept
from orchestrator.flow.adopt import Adopt
from orchestrator.flow.at_exit import remove_containers, stop_containers
from orchestrator.flow.attach import Attach
from orchestrator.flow.compare import Compare
from orchestrator.flow.continuation import Continue, Say
from orchestrator.flow.custody import Custody
from orchestrator.flow.fleet import Fleet
from orchestrator.flow.fork import Fork
from orchestrator.flow.inherit import Inherit
from orchestrator.flow.inputs import Inputs
from orchestrator.flow.lease import Lease
from orchestrator.flow.occupancy import Occupancy
from orchestrator.flow.past_tree import require_past_tree
from orchestrator.flow.pool import Pool
from orchestrator.flow.preserve import Preserve
from orchestrator.flow.publish import Publish
from orchestrator.flow.reap import Reaper, ReaperParts
from orchestrator.flow.recall import Recall
from orchestrator.flow.recover import recover
from orchestrator.flow.run_task import RunTask, TaskParts
from orchestrator.flow.running import RunningTasks
from orchestrator.flow.shares import LeaseShares
from orchestrator.flow.submit import Submit
from orchestrator.flow.supply import Supply
from orchestrator.flow.uploads import Uploads
from orchestrator.gateway.address import resolve
from orchestrator.gateway.branches import GitBranches
from orchestrator.gateway.checkpoint_store import GitCheckpointStore
from orchestrator.gateway.credentials import Credentials
from orchestrator.gateway.credentials_file import read_credentials
from orchestrator.gateway.egress import EgressGateway
from orchestrator.gateway.egress_address import EgressAddresses
from orchestrator.gateway.egress_policy import EgressPolicy
from orchestrator.gateway.egress_upstream import Upstream
from orchestrator.gateway.forges.choice import HttpForges
from orchestrator.gateway.forges.http import ForgeHttp
from orchestrator.gateway.github_app import InstallationTokens
from orchestrator.gateway.mirrors import GitRepositories
from orchestrator.gateway.package_sources import find_sources
from orchestrator.instructions import INSTRUCTIONS
from orchestrator.model.embedded import EmbeddedModel
from orchestrator.model.openai_client import OpenAIModel, endpoint_url
from orchestrator.ports import ObjectStore, Runtime, Worker
from orchestrator.runtimes.bubblewrap import sandbox_problem
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.runtimes.docker_engine import docker_problem
from orchestrator.runtimes.sandbox import SandboxRuntime
from orchestrator.runtimes.selection import choose
from orchestrator.settings import ContainersAtExit, RuntimeChoice, Settings
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
from orchestrator.storage.postgres.publications import PostgresPublications
from orchestrator.storage.postgres.tasks import PostgresTaskStore
from orchestrator.version import VERSION
from orchestrator.workers.client import HttpWorkers

VITAL_CONNECTIONS = 2

log = structlog.get_logger(__name__)

POOL_SECONDS = 3.0
"""How long the end of the service waits for a container that the pool has begun."""


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
        forge_http = ForgeHttp()
        stack.push_async_callback(forge_http.close)
        credentials = _credentials(settings, forge_http)
        metadata, model_info, runtime, egress = await _start_parts(settings, stack)
        tasks, events = metadata.tasks, metadata.events
        info = await runtime.info()
        log.info("runtime_chosen", runtime=info.name, reason=info.reason,
                 not_enforced=info.not_enforced)  # fmt: skip
        model = OpenAIModel(
            model_info.url, settings.llm_api_key.get_secret_value(), settings.llm_model
        )
        stack.push_async_callback(model.close)
        repositories = _repositories(settings, credentials)
        objects = await _objects(settings, stack)
        clock, workers, limits = SystemClock(), HttpWorkers(), _limits(settings)
        occupancy, executor = Occupancy(), metadata.identity.executor_id
        pool = Pool(runtime=runtime, workers=workers, limits=limits, size=settings.warm_pool)
        running_tasks = RunningTasks()
        shares = LeaseShares(metadata.leases, running_tasks.stopping)
        # A running task waits out an outage of Postgres; a caller is told of it.
        patient = metadata.database.patient()
        lease = Lease(
            runtime=runtime,
            workers=workers,
            tasks=PostgresTaskStore(patient),
            limits=limits,
            leases=metadata.leases,
            shares=shares,
            occupancy=occupancy,
            bind=pool.bind,
        )
        await metadata.executors.register()
        # After our containers have ended: until then nobody else may use them.
        stack.push_async_callback(_resign, metadata.executors)
        if not keep_containers:
            stack.push_async_callback(remove_containers, runtime)
        elif settings.containers_at_exit is ContainersAtExit.STOP:
            stack.push_async_callback(stop_containers, runtime, lease, pool)
        inputs = Inputs(objects)
        engine, agent = _engine(settings, metadata), _agent(settings)
        recall = Recall(tasks, engine, agent.repeats_named)

        async def require_tree(task: Task, worker: Worker) -> None:
            # A tree may come from an earlier one, and that one back from storage by the same way.
            await require_past_tree(task, worker, custody.restore)

        supply = Supply(repositories, Inherit(tasks, require_tree))
        custody = await _custody(settings, repositories, objects, metadata, supply)
        stack.push_async_callback(custody.tidy.stop)
        run_task = RunTask(
            TaskParts(
                lease=lease,
                supply=supply,
                custody=custody,
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
        await Adopt(
            runtime=runtime,
            workers=workers,
            tasks=tasks,
            occupancy=occupancy,
            leases=partial(_holders, metadata.leases),
            executor=executor,
        )()
        await engine.start(run_task)
        stack.push_async_callback(engine.stop)
        stack.push_async_callback(running_tasks.stop)
        await recover(tasks, engine)
        reaper = Reaper(
            ReaperParts(
                runtime, occupancy, tasks, partial(_holders, metadata.leases), clock, executor
            ),
            _idle(settings),
        )
        stack.push_async_callback(_ended, asyncio.create_task(reaper.run()))
        stack.push_async_callback(_stopped, pool, asyncio.create_task(pool.run()))
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
            compare=Compare(tasks, lease, require_tree),
            publish=Publish(
                tasks=tasks,
                publications=PostgresPublications(metadata.database),
                branches=GitBranches(repositories, settings.data_dir, settings.git_timeout_seconds),
                forges=HttpForges(forge_http, credentials),
                author=settings.publish_author,
            ),
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
        files = FileObjectStore(settings.objects_dir or settings.data_dir / "objects")
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


def _credentials(settings: Settings, http: ForgeHttp) -> Credentials:
    path = settings.git_credentials
    entries = () if path is None else read_credentials(path.expanduser(), os.environ)
    return Credentials(entries, os.environ, InstallationTokens(http))


def _repositories(settings: Settings, credentials: Credentials) -> GitRepositories:
    return GitRepositories(
        settings.data_dir,
        allow_paths=settings.allow_paths,
        allow_hosts=settings.allow_hosts,
        max_repository_bytes=settings.max_repository_bytes,
        timeout_seconds=settings.git_timeout_seconds,
        max_file_bytes=settings.max_file_bytes,
        credentials=credentials,
    )


async def _custody(
    settings: Settings,
    repositories: GitRepositories,
    objects: ObjectStore,
    metadata: _Metadata,
    supply: Supply,
) -> Custody:
    store = GitCheckpointStore(
        settings.data_dir, repositories=repositories, max_bytes=settings.max_repository_bytes
    )
    return await Custody.open(
        preserve=Preserve(objects, SystemClock()),
        store=store,
        supply=supply,
        events=metadata.events,
        tasks=metadata.tasks,
        room=settings.data_dir / "bundles",
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


def _idle(settings: Settings) -> IdleLimits:
    return IdleLimits(
        pause_seconds=settings.idle_pause_seconds,
        stop_seconds=settings.idle_stop_seconds,
        remove_seconds=settings.idle_remove_seconds,
    )


async def _holders(leases: PostgresLeases) -> Mapping[str, str]:
    """The executor that works in each leased workspace."""
    return {each.workspace_id: each.executor_id for each in await leases.held()}


async def _ended(loop: "asyncio.Task[None]") -> None:
    loop.cancel()
    await asyncio.wait({loop})


async def _stopped(pool: Pool, filling: "asyncio.Task[None]") -> None:
    pool.stop()
    await asyncio.wait({filling}, timeout=POOL_SECONDS)
    await _ended(filling)
