"""The way out of containers."""

import asyncio
import os

import structlog

from orchestrator.domain.egress import Allowlist, PackageSources
from orchestrator.domain.workspace_settings import Allowance
from orchestrator.errors import ConfigurationError
from orchestrator.gateway.address import resolve
from orchestrator.gateway.certificates import only_certificates
from orchestrator.gateway.egress import EgressGateway
from orchestrator.gateway.egress_address import EgressAddresses
from orchestrator.gateway.egress_policy import EgressPolicy
from orchestrator.gateway.egress_terms import WorkspaceTerms
from orchestrator.gateway.egress_upstream import Upstream
from orchestrator.gateway.interception import (
    Interception,
    make_interception,
    no_interception,
)
from orchestrator.gateway.package_sources import find_sources
from orchestrator.main.allowance import read_rules
from orchestrator.ports import Secrets, WorkspaceSettingsStore
from orchestrator.settings import Settings

log = structlog.get_logger(__name__)


async def find_package_sources(settings: Settings) -> PackageSources:
    """What this machine's package managers are configured with; it takes a while."""
    sources = await find_sources(settings.egress_presets)
    for notice in sources.notices:
        log.warning("egress_preset", detail=notice)
    return sources


async def make_egress(
    settings: Settings,
    sources: PackageSources,
    store: WorkspaceSettingsStore,
    allowance: Allowance,
    secrets: Secrets,
) -> EgressGateway:
    """The gateway, with what the settings and this machine's package managers allow.

    Raises:
        ConfigurationError: A rule or the certificates cannot be read.
    """
    rules = read_rules("BERTH_EGRESS_ALLOW", settings.egress_allow)
    policy = EgressPolicy(
        Allowlist((*rules, *sources.rules)),
        EgressAddresses(settings.allow_hosts, resolve),
        sources.credentials,
        Upstream(os.environ),
    )
    terms = WorkspaceTerms(store, allowance, secrets)
    return EgressGateway(policy, terms, sources, await _interception(settings, sources))


async def _interception(settings: Settings, sources: PackageSources) -> Interception:
    certificates = await _certificates(settings, sources)
    if settings.secrets_dir is None:
        return no_interception(certificates)
    try:
        return await make_interception(certificates)
    except ValueError as error:
        raise ConfigurationError(f"BERTH_EGRESS_CA_FILE: {error}.") from None


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
