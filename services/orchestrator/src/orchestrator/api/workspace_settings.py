"""Settings of a workspace, within what the deployment allows."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestrator.api.request_bodies import Strict
from orchestrator.api.services import Use
from orchestrator.domain.injection import MAX_USES, METHODS, SECRET_NAME, SecretUse
from orchestrator.domain.workspace_settings import (
    MAX_HOSTS,
    ContainerChoice,
    EgressChoice,
    WorkspaceSettings,
)
from orchestrator.flow.configure import Configured
from orchestrator.settings import LEAST_CPUS

router = APIRouter(tags=["workspaces"])

MIB = 1024**2
Host = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class ContainerSettingsBody(Strict):
    """Limits of the container; what is left out is the deployment's."""

    memory_bytes: int | None = Field(default=None, ge=64 * MIB)
    cpus: float | None = Field(default=None, ge=LEAST_CPUS, allow_inf_nan=False)
    pids: int | None = Field(default=None, ge=32, description="Processes and threads.")
    open_files: int | None = Field(default=None, ge=256, description="Of one process.")
    file_bytes: int | None = Field(default=None, ge=MIB, description="Size of one file.")
    disk_bytes: int | None = Field(
        default=None, ge=64 * MIB, description="What the workspace may hold on disk."
    )


class EgressSettingsBody(Strict):
    """The way out; what is left out is the deployment's."""

    task_bytes: int | None = Field(
        default=None, ge=1, description="Bytes that one task may move in and out."
    )
    workspace_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Bytes that all tasks of the workspace may move while the service runs.",
    )
    hosts: list[Host] = Field(
        default_factory=list,
        max_length=MAX_HOSTS,
        description=(
            "Hosts to reach beside the deployment's, out of those that it permits: host, "
            "host:port, *.domain."
        ),
    )


class SecretUseBody(Strict):
    """A secret of the operator's, added by the gateway to matching requests."""

    secret: Annotated[str, StringConstraints(pattern=rf"^{SECRET_NAME.pattern}$")]
    url: str = Field(
        min_length=1,
        max_length=1_000,
        description="Where the requests' addresses begin: https://host, with a path if need be.",
    )
    header: str = Field(default="Authorization", min_length=1, max_length=64)
    format: str = Field(
        default="Bearer {}",
        min_length=2,
        max_length=200,
        description="The header's value, with {} for the secret.",
    )
    methods: list[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]] = Field(
        default_factory=list, max_length=len(METHODS), description="Default: all of them."
    )


class WorkspaceSettingsBody(Strict):
    """All settings of a workspace."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {},
                {
                    "container": {"memory_bytes": 1_073_741_824, "cpus": 1.5, "pids": 256},
                    "egress": {"task_bytes": 104_857_600, "hosts": ["api.example.com:443"]},
                },
                {
                    "secrets": [
                        {"secret": "weather", "url": "https://api.example.com/v1"},
                        {
                            "secret": "maps",
                            "url": "https://maps.example.com",
                            "header": "X-Api-Key",
                            "format": "{}",
                            "methods": ["GET"],
                        },
                    ]
                },
            ]
        },
    )

    container: ContainerSettingsBody = ContainerSettingsBody()
    egress: EgressSettingsBody = EgressSettingsBody()
    secrets: list[SecretUseBody] = Field(default_factory=list, max_length=MAX_USES)

    def to_settings(self) -> WorkspaceSettings:
        """The settings as the flow takes them."""
        return WorkspaceSettings(
            ContainerChoice(**self.container.model_dump()),
            EgressChoice(
                self.egress.task_bytes, self.egress.workspace_bytes, tuple(self.egress.hosts)
            ),
            tuple(
                SecretUse(each.secret, each.url, each.header, each.format, tuple(each.methods))
                for each in self.secrets
            ),
        )


class LimitsBody(BaseModel):
    """What the container may use."""

    memory_bytes: int
    cpus: float
    pids: int
    open_files: int
    file_bytes: int
    disk_bytes: int


class EffectiveEgressBody(BaseModel):
    """What tasks may move, and the hosts beside those that all workspaces may reach."""

    task_bytes: int
    workspace_bytes: int
    hosts: list[str]


class EffectiveBody(BaseModel):
    """What counts, within what the deployment allows now."""

    container: LimitsBody
    egress: EffectiveEgressBody
    secrets: list[SecretUseBody] = Field(description="Those that the operator gives for it.")


class ConfiguredBody(BaseModel):
    """What was set for a workspace, and what counts."""

    workspace_id: str
    settings: WorkspaceSettingsBody
    effective: EffectiveBody


@router.get(
    "/workspaces/{workspace_id}/settings",
    response_model=ConfiguredBody,
    summary="Settings of a workspace",
)
async def read_settings(workspace_id: str, services: Use) -> ConfiguredBody:
    """What was set for the workspace, and what counts within the deployment's limits."""
    return _body(workspace_id, await services.configure.get(workspace_id))


@router.put(
    "/workspaces/{workspace_id}/settings",
    response_model=ConfiguredBody,
    summary="Replace the settings of a workspace",
)
async def replace_settings(
    workspace_id: str, body: WorkspaceSettingsBody, services: Use
) -> ConfiguredBody:
    """Set everything anew; what is left out is the deployment's.

    The container is made anew with its limits when no task works in it; the way out follows at
    once.
    """
    return _body(workspace_id, await services.configure.put(workspace_id, body.to_settings()))


def _body(workspace_id: str, configured: Configured) -> ConfiguredBody:
    return ConfiguredBody(
        workspace_id=workspace_id,
        settings=_settings_body(configured.settings),
        effective=_effective_body(configured),
    )


def _settings_body(settings: WorkspaceSettings) -> WorkspaceSettingsBody:
    egress = settings.egress
    return WorkspaceSettingsBody(
        container=ContainerSettingsBody(**asdict(settings.container)),
        egress=EgressSettingsBody(
            task_bytes=egress.task_bytes,
            workspace_bytes=egress.workspace_bytes,
            hosts=list(egress.hosts),
        ),
        secrets=_secret_bodies(settings.secrets),
    )


def _secret_bodies(uses: Sequence[SecretUse]) -> list[SecretUseBody]:
    listed = [{**asdict(use), "methods": list(use.methods)} for use in uses]
    return [SecretUseBody.model_validate(each) for each in listed]


def _effective_body(configured: Configured) -> EffectiveBody:
    counts = configured.effective
    return EffectiveBody(
        container=LimitsBody(**asdict(counts.container)),
        egress=EffectiveEgressBody(
            task_bytes=counts.egress.task_bytes,
            workspace_bytes=counts.egress.workspace_bytes,
            hosts=[str(rule) for rule in counts.rules],
        ),
        secrets=_secret_bodies(configured.secrets),
    )
