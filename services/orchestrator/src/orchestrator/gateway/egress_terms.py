"""What the tasks of one workspace may do by the way out, looked up while they do it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from orchestrator.domain.egress import Destination, EgressLimits, HostRule
from orchestrator.domain.injection import Injection, Secret, injections
from orchestrator.domain.workspace_settings import Allowance, WorkspaceSettings, effective
from orchestrator.errors import ConfigurationError, DatabaseUnavailable
from orchestrator.ports import Secrets, WorkspaceSettingsStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EgressTerms:
    """A workspace's own; `rules` are beside those that count for all."""

    limits: EgressLimits
    rules: tuple[HostRule, ...] = ()
    injections: tuple[Injection, ...] = ()

    def is_about(self, scheme: str, destination: Destination) -> bool:
        """Whether secrets are added to some requests to a destination."""
        return any(each.is_at(scheme, destination) for each in self.injections)


LookUp = Callable[[], Awaitable[EgressTerms]]
"""The terms of a workspace as they are now."""
TermsOf = Callable[[str], LookUp]


def same_for_all(limits: EgressLimits) -> TermsOf:
    """Terms of a deployment whose workspaces have no settings."""

    async def look_up() -> EgressTerms:
        return EgressTerms(limits)

    return lambda _workspace_id: look_up


class WorkspaceTerms:
    """Terms by the settings of each workspace.

    Args:
        store: Has them.
        allowance: What the deployment gives.
        secrets: The operator's.
    """

    def __init__(
        self, store: WorkspaceSettingsStore, allowance: Allowance, secrets: Secrets
    ) -> None:
        self._store = store
        self._allowance = allowance
        self._secrets = secrets

    def __call__(self, workspace_id: str) -> LookUp:
        """A look-up for one task; in an outage of the database it gives what it gave last."""
        last: EgressTerms | None = None

        async def look_up() -> EgressTerms:
            nonlocal last
            try:
                settings = await self._store.get(workspace_id)
            except DatabaseUnavailable as failure:
                if last is None:
                    raise
                log.warning("egress_terms_kept", workspace=workspace_id, detail=failure.detail)
                return last
            counts = effective(settings, self._allowance)
            found = injections(settings.secrets, await self._found(settings))
            last = EgressTerms(counts.egress, counts.rules, found)
            return last

        return look_up

    async def _found(self, settings: WorkspaceSettings) -> Mapping[str, Secret]:
        found = {}
        for name in {use.secret for use in settings.secrets}:
            try:
                secret = await self._secrets.get(name)
            except ConfigurationError as failure:
                # The rest of the way out stays open; what needs the secret is refused.
                log.warning("secret_not_used", secret=name, detail=failure.detail)
                continue
            if secret is not None:
                found[name] = secret
        return found
