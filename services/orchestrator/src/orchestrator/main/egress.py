"""The way out of containers."""

import asyncio
import os

import structlog

from orchestrator.domain.egress import Allowlist, EgressLimits, HostRule, PackageSources, parse_rule
from orchestrator.errors import ConfigurationError, EgressRequestInvalid
from orchestrator.gateway.address import resolve
from orchestrator.gateway.certificates import only_certificates
from orchestrator.gateway.egress import EgressGateway
from orchestrator.gateway.egress_address import EgressAddresses
from orchestrator.gateway.egress_policy import EgressPolicy
from orchestrator.gateway.egress_upstream import Upstream
from orchestrator.gateway.package_sources import find_sources
from orchestrator.settings import Settings

log = structlog.get_logger(__name__)


async def make_egress(settings: Settings) -> EgressGateway:
    """The gateway, with what the settings and this machine's package managers allow.

    Raises:
        ConfigurationError: A rule or the certificates cannot be read.
    """
    sources = await find_sources(settings.egress_presets)
    for notice in sources.notices:
        log.warning("egress_preset", detail=notice)
    policy = EgressPolicy(
        Allowlist((*_rules(settings), *sources.rules)),
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


def _rules(settings: Settings) -> tuple[HostRule, ...]:
    try:
        return tuple(parse_rule(text) for text in settings.egress_allow)
    except EgressRequestInvalid as error:
        raise ConfigurationError(f"BERTH_EGRESS_ALLOW: {error.detail}") from None


async def _certificates(settings: Settings, sources: PackageSources) -> bytes | None:
    file = settings.egress_ca_file or sources.certificates
    if file is None:
        return None
    try:
        content = await asyncio.to_thread(file.read_bytes)
    except OSError as error:
        raise ConfigurationError(
            f"BERTH_EGRESS_CA_FILE: {file} cannot be read ({error.strerror})."
        ) from error
    certificates = only_certificates(content)
    if not certificates:
        raise ConfigurationError(f"BERTH_EGRESS_CA_FILE: {file} has no certificate in it.")
    return certificates
