"""Settings: environment variables, with defaults that run everything on one machine."""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

GIB = 1024**3
MIB = 1024**2
LEAST_CPUS = 0.01  # a kernel takes no smaller share, and engines take less for no limit


class RuntimeChoice(StrEnum):
    """Which runtime to use; `auto` takes Docker where it is ready, else the sandbox."""

    AUTO = "auto"
    DOCKER = "docker"
    SANDBOX = "sandbox"


class Transport(StrEnum):
    """How the orchestrator reaches workers in Docker containers."""

    SOCKET = "socket"
    TCP = "tcp"


class ContainersAtExit(StrEnum):
    """What becomes of containers when the service ends in order."""

    KEEP = "keep"
    STOP = "stop"


class EgressPreset(StrEnum):
    """Package managers whose indexes containers may be let out to."""

    PIP = "pip"
    NPM = "npm"
    APT = "apt"
    CARGO = "cargo"
    GO = "go"
    MAVEN = "maven"


def default_data_dir(environment: Mapping[str, str], user_id: int) -> Path:
    """The customary place for a service's state: the system's for root, else the user's own."""
    if user_id == 0:
        return Path("/var/lib/berth")
    state = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "berth"


class Settings(BaseSettings):
    """All settings of the orchestrator.

    Names without prefix are those that users of such systems know; ours start with `BERTH_`.
    """

    # Compose files hand on what is unset as empty variables.
    model_config = SettingsConfigDict(
        env_prefix="BERTH_", env_ignore_empty=True, populate_by_name=True, extra="ignore"
    )

    database_url: SecretStr | None = Field(
        default=None,
        validation_alias="DATABASE_URL",
        description="Postgres address; unset: an embedded Postgres under the data directory.",
    )
    gcs_bucket: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$",
        validation_alias="GCS_BUCKET",
        description=(
            "Google Cloud Storage bucket for uploaded files and checkpoints; unset: files under "
            "the data directory."
        ),
    )
    gpt_oss_url: str | None = Field(
        default=None,
        validation_alias="GPT_OSS_URL",
        description="OpenAI-compatible endpoint, with or without /v1; unset: the scripted model.",
    )
    llm_api_key: SecretStr = Field(
        default=SecretStr("none"),
        validation_alias="LLM_API_KEY",
        description="Key for the model endpoint.",
    )
    llm_model: str = Field(
        default="openai/gpt-oss-20b",
        validation_alias="LLM_MODEL",
        description="Model name sent to the endpoint.",
    )
    llm_models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        validation_alias="LLM_MODELS",
        description="Further models at the endpoint that a request may name; ',' between.",
    )
    data_dir: Path = Field(
        default_factory=lambda: default_data_dir(os.environ, os.geteuid()),
        description=(
            "Where everything Berth keeps on disk lies; unset: /var/lib/berth for root, "
            "~/.local/state/berth for others."
        ),
    )
    objects_dir: Path | None = Field(
        default=None,
        description=(
            "Where uploaded files and checkpoints lie without a bucket, which several data "
            "directories may share; unset: objects under the data directory."
        ),
    )
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port of the API; 0: any free one.")
    runtime: RuntimeChoice = Field(default=RuntimeChoice.AUTO, description="Where containers run.")
    transport: Transport = Field(
        default=Transport.SOCKET,
        description="How workers in Docker containers are reached; tcp where sockets cannot cross.",
    )
    agent_image: str | None = Field(
        default=None, description="Image of the agent container; unset: berth-agent:<version>."
    )
    deployment: str = Field(
        default="default",
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        description="Name that tells this deployment's containers from others on the same engine.",
    )
    allow_paths: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="Local directories that repositories may be taken from; ':' between.",
    )
    allow_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Hosts allowed although they resolve to private addresses; ',' between.",
    )
    egress_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description=(
            "Hosts that containers may reach: host, host:port, *.domain; without port 80 and 443; "
            "',' between."
        ),
    )
    egress_presets: Annotated[tuple[EgressPreset, ...], NoDecode] = Field(
        default=(),
        description=(
            "Package managers whose indexes, as configured on this machine, containers may reach: "
            "pip, npm, apt; ',' between."
        ),
    )
    egress_ca_file: Path | None = Field(
        default=None,
        description=(
            "PEM file of certificates that programs in containers trust; unset: what pip is "
            "configured with here, if its preset is on, else those of the image."
        ),
    )
    egress_task_bytes: int = Field(
        default=4 * GIB, ge=1, description="Bytes that one task may move in and out."
    )
    egress_workspace_bytes: int = Field(
        default=64 * GIB,
        ge=1,
        description="Bytes that all tasks of a workspace may move while the service runs.",
    )
    egress_task_connections: int = Field(
        default=32, ge=1, description="Connections out that one task may have at once."
    )
    egress_workspace_connections: int = Field(
        default=64, ge=1, description="Connections out that a workspace may have at once."
    )
    workspace_egress_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description=(
            "Hosts that a workspace's settings may add for itself, as in BERTH_EGRESS_ALLOW; ',' "
            "between; unset: none."
        ),
    )
    workspace_max_egress_task_bytes: int | None = Field(
        default=None,
        ge=1,
        description="How far a workspace's settings may raise BERTH_EGRESS_TASK_BYTES; unset: not.",
    )
    workspace_max_egress_workspace_bytes: int | None = Field(
        default=None,
        ge=1,
        description=(
            "How far a workspace's settings may raise BERTH_EGRESS_WORKSPACE_BYTES; unset: not."
        ),
    )
    egress_idle_seconds: float = Field(
        default=120.0, gt=0, description="Time without traffic after which a connection is cut."
    )
    max_repository_bytes: int = Field(
        default=2 * GIB, gt=0, description="Largest mirror of a repository on disk."
    )
    git_timeout_seconds: float = Field(
        default=600.0, gt=0, description="Longest time one fetch from a git server may take."
    )
    git_credentials: Path | None = Field(
        default=None,
        description=(
            "File with credentials for private repositories and pull requests (TOML, mode 600; "
            "see docs/operations.md); unset: none."
        ),
    )
    secrets_dir: Path | None = Field(
        default=None,
        description=(
            "Directory with secrets that workspaces may have added to their requests (NAME.toml, "
            "mode 600; see docs/operations.md); unset: none."
        ),
    )
    publish_author: str = Field(
        default="Berth <berth@localhost>",
        pattern=r"^[^<>\x00-\x1f]*[^<>\x00-\x20] <[^<>\s]+>$",
        description="Author of the commits that are published.",
    )
    container_memory_bytes: int = Field(
        default=2 * GIB, ge=64 * MIB, description="Memory limit of a container."
    )
    container_cpus: float = Field(
        default=2.0, ge=LEAST_CPUS, allow_inf_nan=False, description="CPU limit of a container."
    )
    container_pids: int = Field(default=512, ge=32, description="Process limit of a container.")
    container_open_files: int = Field(
        default=8_192, ge=256, description="Files that one process of a container may have open."
    )
    container_file_bytes: int = Field(
        default=8 * GIB, ge=MIB, description="Largest file that a container may write."
    )
    container_disk_bytes: int = Field(
        default=10 * GIB,
        ge=64 * MIB,
        description=(
            "What a workspace may hold on disk, its clones and trees included; measured now and "
            "then."
        ),
    )
    docker_runtime: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description=(
            "Runtime of the Docker engine for containers, such as runsc (gVisor), where the engine "
            "has it; unset: the engine's default."
        ),
    )
    workspace_max_memory_bytes: int | None = Field(
        default=None,
        ge=64 * MIB,
        description="How far a workspace's settings may raise its memory limit; unset: not.",
    )
    workspace_max_cpus: float | None = Field(
        default=None,
        ge=LEAST_CPUS,
        description="How far a workspace's settings may raise its CPU limit; unset: not.",
    )
    workspace_max_pids: int | None = Field(
        default=None,
        ge=32,
        description="How far a workspace's settings may raise its process limit; unset: not.",
    )
    workspace_max_open_files: int | None = Field(
        default=None,
        ge=256,
        description="How far a workspace's settings may raise its limit of open files; unset: not.",
    )
    workspace_max_file_bytes: int | None = Field(
        default=None,
        ge=MIB,
        description="How far a workspace's settings may raise its largest file; unset: not.",
    )
    workspace_max_disk_bytes: int | None = Field(
        default=None,
        ge=64 * MIB,
        description="How far a workspace's settings may raise its disk limit; unset: not.",
    )
    start_timeout_seconds: float = Field(
        default=60.0, gt=0, description="Longest time a container's worker may take to answer."
    )
    idle_pause_seconds: float = Field(
        default=300.0,
        ge=0,
        description="Seconds without a task until a container is paused; 0: never.",
    )
    idle_stop_seconds: float = Field(
        default=3_600.0, ge=0, description="Seconds until it is stopped, its trees kept; 0: never."
    )
    idle_remove_seconds: float = Field(
        default=7 * 86_400.0,
        ge=0,
        description="Seconds until it is removed with the trees of its tasks; 0: never.",
    )
    warm_pool: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Containers kept ready for workspaces that have none, about 75 MB each.",
    )
    containers_at_exit: ContainersAtExit = Field(
        default=ContainersAtExit.STOP,
        description=(
            "What becomes of containers when the service ends: stop, or keep, so that their calls "
            "go on and the next start finds them running."
        ),
    )
    sandbox_uid: int = Field(
        default=10001, gt=0, description="User id that sandboxes run under when started by root."
    )
    max_running_tasks: int = Field(
        default=16, ge=1, description="Tasks that one orchestrator runs at the same time."
    )
    max_workspace_tasks: int = Field(
        default=4, ge=1, description="Tasks of one workspace that run at the same time."
    )
    heartbeat_seconds: float = Field(
        default=2.0,
        ge=0.1,
        le=60.0,
        description=(
            "Time between two signs of life of an orchestrator. Others on the same database take "
            "the tasks of one that is killed over within three. The same for all of them."
        ),
    )
    max_steps: int = Field(default=60, ge=1, description="Default and largest budget of steps.")
    max_tokens: int = Field(
        default=2_000_000, ge=1, description="Default and largest budget of tokens."
    )
    max_seconds: float = Field(
        default=1_800.0,
        gt=0,
        allow_inf_nan=False,
        description="Default and largest budget of seconds.",
    )
    context_tokens: int = Field(
        default=120_000, ge=2_000, description="Context window of the model, in tokens."
    )
    tool_output_chars: int = Field(
        default=16_000, ge=500, description="Longest tool output handed to the model whole."
    )
    model_timeout_seconds: float = Field(
        default=300.0, gt=0, description="Longest time one model call may take."
    )
    max_query_chars: int = Field(default=100_000, ge=1, description="Longest query.")
    max_body_bytes: int = Field(default=32 * MIB, ge=1024, description="Largest request body.")
    max_file_bytes: int = Field(default=32 * MIB, ge=1, description="Largest uploaded file.")
    log_level: str = Field(
        default="info", pattern=r"^(debug|info|warning|error)$", description="Least level logged."
    )

    @field_validator("gcs_bucket", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("allow_paths", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part).expanduser() for part in value.split(":") if part)
        return value

    @field_validator(
        "allow_hosts", "egress_allow", "egress_presets", "workspace_egress_allow", mode="before"
    )
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().lower() for part in value.split(",") if part.strip())
        return value

    @field_validator("llm_models", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value
