"""What the deployment gives its workspaces, from the settings."""

from collections.abc import Iterable
from dataclasses import replace

from orchestrator.domain.container import Limits
from orchestrator.domain.egress import EgressLimits, HostRule, parse_rule
from orchestrator.domain.workspace_settings import Allowance, Bounds
from orchestrator.errors import ConfigurationError, EgressRequestInvalid
from orchestrator.settings import Settings


def make_allowance(settings: Settings) -> Allowance:
    """Defaults, and how far a workspace may go from there.

    Raises:
        ConfigurationError: A rule cannot be read.
    """
    default = Bounds(container_limits(settings), egress_limits(settings))
    return Allowance(
        default=default,
        maximum=Bounds(_most_of_container(settings), _most_of_egress(settings)),
        hosts=read_rules("BERTH_WORKSPACE_EGRESS_ALLOW", settings.workspace_egress_allow),
    )


def container_limits(settings: Settings) -> Limits:
    """What a container may use unless its workspace says otherwise."""
    return Limits(
        memory_bytes=settings.container_memory_bytes,
        cpus=settings.container_cpus,
        pids=settings.container_pids,
        open_files=settings.container_open_files,
        file_bytes=settings.container_file_bytes,
        disk_bytes=settings.container_disk_bytes,
    )


def egress_limits(settings: Settings) -> EgressLimits:
    """What tasks may use of the way out unless their workspace says otherwise."""
    return EgressLimits(
        task_bytes=settings.egress_task_bytes,
        workspace_bytes=settings.egress_workspace_bytes,
        task_connections=settings.egress_task_connections,
        workspace_connections=settings.egress_workspace_connections,
        idle_seconds=settings.egress_idle_seconds,
    )


def read_rules(variable: str, texts: Iterable[str]) -> tuple[HostRule, ...]:
    """The rules that a variable holds.

    Raises:
        ConfigurationError: One cannot be read.
    """
    try:
        return tuple(parse_rule(text) for text in texts)
    except EgressRequestInvalid as error:
        raise ConfigurationError(f"{variable}: {error.detail}") from None


def _most_of_container(settings: Settings) -> Limits:
    # A maximum below the default would take from a workspace that only names what it has.
    default = container_limits(settings)
    return replace(
        default,
        memory_bytes=max(default.memory_bytes, settings.workspace_max_memory_bytes or 0),
        cpus=max(default.cpus, settings.workspace_max_cpus or 0),
        pids=max(default.pids, settings.workspace_max_pids or 0),
        open_files=max(default.open_files, settings.workspace_max_open_files or 0),
        file_bytes=max(default.file_bytes, settings.workspace_max_file_bytes or 0),
        disk_bytes=max(default.disk_bytes, settings.workspace_max_disk_bytes or 0),
    )


def _most_of_egress(settings: Settings) -> EgressLimits:
    default = egress_limits(settings)
    return replace(
        default,
        task_bytes=max(default.task_bytes, settings.workspace_max_egress_task_bytes or 0),
        workspace_bytes=max(
            default.workspace_bytes, settings.workspace_max_egress_workspace_bytes or 0
        ),
    )
