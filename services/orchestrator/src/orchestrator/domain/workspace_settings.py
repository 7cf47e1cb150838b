"""A workspace's own settings, and what comes of them within what the deployment allows."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

from orchestrator.domain.container import Limits
from orchestrator.domain.egress import EgressLimits, HostRule, parse_rule
from orchestrator.domain.injection import SecretUse
from orchestrator.errors import EgressRequestInvalid, SettingRefused

MAX_HOSTS = 64


@dataclass(frozen=True, slots=True)
class ContainerChoice:
    """Limits that a workspace has chosen; None takes the deployment's. Named as in `Limits`."""

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    open_files: int | None = None
    file_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class EgressChoice:
    """The way out as a workspace has chosen it; the first two are named as in `EgressLimits`."""

    task_bytes: int | None = None
    workspace_bytes: int | None = None
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkspaceSettings:
    """What was set for a workspace; the deployment's settings count for the rest."""

    container: ContainerChoice = ContainerChoice()
    egress: EgressChoice = EgressChoice()
    secrets: tuple[SecretUse, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of both kinds."""

    container: Limits
    egress: EgressLimits


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the deployment gives its workspaces.

    Attributes:
        default: For whoever sets nothing.
        maximum: How far a workspace may raise it.
        hosts: Out of which it may name hosts to reach.
    """

    default: Bounds
    maximum: Bounds
    hosts: tuple[HostRule, ...] = ()


@dataclass(frozen=True, slots=True)
class EffectiveSettings:
    """What counts for a workspace; `rules` are beside those that count for all."""

    container: Limits
    egress: EgressLimits
    rules: tuple[HostRule, ...] = field(default=())


def require_allowed(settings: WorkspaceSettings, allowance: Allowance) -> None:
    """Let settings pass that can count as they are.

    Raises:
        SettingRefused: One is beyond the deployment's maximum, or a host is not permitted.
    """
    _require_below("container", settings.container, allowance.maximum.container, "")
    _require_below("egress", settings.egress, allowance.maximum.egress, "EGRESS_")
    for text in settings.egress.hosts:
        try:
            rule = parse_rule(text)
        except EgressRequestInvalid as error:
            raise SettingRefused(f"egress.hosts: {error.detail}", setting="egress.hosts") from None
        if not any(permitted.covers(rule) for permitted in allowance.hosts):
            raise SettingRefused(
                f"egress.hosts: {text} may not be reached from workspaces: the operator permits "
                "hosts for them with BERTH_WORKSPACE_EGRESS_ALLOW.",
                setting="egress.hosts",
                host=text,
            )


def effective(settings: WorkspaceSettings, allowance: Allowance) -> EffectiveSettings:
    """What counts now; what was allowed once and is no more is cut down, not refused."""
    default, maximum = allowance.default, allowance.maximum
    chosen = dict(_chosen(settings.container))
    limits = {name: min(value, getattr(maximum.container, name)) for name, value in chosen.items()}
    moved = dict(_chosen(settings.egress))
    bytes_ = {name: min(value, getattr(maximum.egress, name)) for name, value in moved.items()}
    return EffectiveSettings(
        container=replace(default.container, **limits),
        egress=replace(default.egress, **bytes_),
        rules=tuple(_permitted(settings.egress.hosts, allowance.hosts)),
    )


def _permitted(hosts: Iterable[str], permitted: Iterable[HostRule]) -> Iterable[HostRule]:
    allowed = tuple(permitted)
    for text in hosts:
        rule = parse_rule(text)
        if any(each.covers(rule) for each in allowed):
            yield rule


def _chosen(choice: ContainerChoice | EgressChoice) -> Iterable[tuple[str, int | float]]:
    """The limits of a choice that were set, with their names."""
    for each in fields(choice):
        value = getattr(choice, each.name)
        if isinstance(value, int | float):
            yield each.name, value


def _require_below(
    group: str,
    choice: ContainerChoice | EgressChoice,
    maximum: Limits | EgressLimits,
    variable: str,
) -> None:
    for name, value in _chosen(choice):
        most = getattr(maximum, name)
        if value > most:
            raise SettingRefused(
                f"{group}.{name} is at most {most} here: the operator sets the maximum with "
                f"BERTH_WORKSPACE_MAX_{variable}{name.upper()}.",
                setting=f"{group}.{name}",
                maximum=most,
            )
