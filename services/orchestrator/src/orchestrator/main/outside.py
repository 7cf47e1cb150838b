"""What the service works with: Postgres, runtime, model, git, object storage, the way out."""

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import structlog

from orchestrator.api.services import ModelInfo
from orchestrator.domain.egress import PackageSources
from orchestrator.domain.workspace_settings import Allowance
from orchestrator.errors import BerthError
from orchestrator.gateway.credentials import Credentials
from orchestrator.gateway.credentials_file import read_credentials
from orchestrator.gateway.egress import EgressGateway
from orchestrator.gateway.forges.http import ForgeHttp
from orchestrator.gateway.github_app import InstallationTokens
from orchestrator.gateway.mirrors import GitRepositories
from orchestrator.gateway.secret_files import SecretFiles
from orchestrator.main.allowance import make_allowance
from orchestrator.main.egress import find_package_sources, make_egress
from orchestrator.main.metadata import Metadata, open_metadata
from orchestrator.model.embedded import EmbeddedModel
from orchestrator.model.openai_client import OpenAIModel, endpoint_url
from orchestrator.ports import ObjectStore, Runtime, RuntimeInfo
from orchestrator.runtimes.bubblewrap import sandbox_problem
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.runtimes.docker_engine import docker_problem
from orchestrator.runtimes.sandbox import SandboxRuntime
from orchestrator.runtimes.selection import choose
from orchestrator.settings import RuntimeChoice, Settings
from orchestrator.storage.objects.files import FileObjectStore
from orchestrator.storage.objects.gcs import GcsObjectStore
from orchestrator.version import VERSION

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outside:
    """The adapters to what is not ours, started."""

    metadata: Metadata
    runtime: Runtime
    runtime_info: RuntimeInfo
    model: OpenAIModel
    model_info: ModelInfo
    egress: EgressGateway
    allowance: Allowance
    secrets: SecretFiles
    forge_http: ForgeHttp
    credentials: Credentials
    repositories: GitRepositories
    objects: ObjectStore


async def start_outside(settings: Settings, stack: AsyncExitStack) -> Outside:
    """Start and reach everything that is not ours.

    Raises:
        BerthError: A part cannot start; the sentence says what to do.
    """
    forge_http = ForgeHttp()
    stack.push_async_callback(forge_http.close)
    credentials = _credentials(settings, forge_http)
    allowance = make_allowance(settings)
    secrets = SecretFiles(settings.secrets_dir and settings.secrets_dir.expanduser())
    await secrets.check()
    metadata, model_info, runtime, sources = await _start_slow(settings, stack)
    egress = await make_egress(settings, sources, metadata.settings, allowance, secrets)
    info = await runtime.info()
    log.info("runtime_chosen", runtime=info.name, reason=info.reason,
             not_enforced=info.not_enforced)  # fmt: skip
    model = OpenAIModel(model_info.url, settings.llm_api_key.get_secret_value())
    stack.push_async_callback(model.close)
    repositories = _repositories(settings, credentials)
    objects = await open_objects(settings, stack)
    return Outside(
        metadata=metadata,
        runtime=runtime,
        runtime_info=info,
        model=model,
        model_info=model_info,
        egress=egress,
        allowance=allowance,
        secrets=secrets,
        forge_http=forge_http,
        credentials=credentials,
        repositories=repositories,
        objects=objects,
    )


async def open_objects(settings: Settings, stack: AsyncExitStack) -> ObjectStore:
    """The bucket of the settings, or files.

    Raises:
        ConfigurationError: The bucket cannot be used.
    """
    if settings.gcs_bucket is None:
        files = FileObjectStore(settings.objects_dir or settings.data_dir / "objects")
        await files.clean()
        return files
    bucket = GcsObjectStore(settings.gcs_bucket)
    stack.push_async_callback(bucket.close)
    await bucket.check()
    return bucket


async def _start_slow(
    settings: Settings, stack: AsyncExitStack
) -> tuple[Metadata, ModelInfo, Runtime, PackageSources]:
    """Start what takes time, side by side: the slowest part sets the pace."""
    try:
        async with asyncio.TaskGroup() as group:
            metadata = group.create_task(open_metadata(settings, stack))
            model = group.create_task(_model_endpoint(settings, stack))
            runtime = group.create_task(_runtime(settings, stack))
            sources = group.create_task(find_package_sources(settings))
    except* BerthError as failures:
        raise failures.exceptions[0] from None
    return metadata.result(), model.result(), runtime.result(), sources.result()


async def _runtime(settings: Settings, stack: AsyncExitStack) -> Runtime:
    image = settings.agent_image or f"berth-agent:{VERSION}"
    selection = await choose(
        settings.runtime,
        docker=partial(docker_problem, image, settings.docker_runtime),
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
            engine_runtime=settings.docker_runtime,
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


async def _model_endpoint(settings: Settings, stack: AsyncExitStack) -> ModelInfo:
    name, further = settings.llm_model, settings.llm_models
    if settings.gpt_oss_url is not None:
        return ModelInfo(endpoint_url(settings.gpt_oss_url), name, further, scripted=False)
    embedded = EmbeddedModel()
    stack.push_async_callback(embedded.stop)
    url = await embedded.start()
    log.warning("scripted_model", reason="GPT_OSS_URL is not set: answers come from a script")
    return ModelInfo(url, name, further, scripted=True)


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
