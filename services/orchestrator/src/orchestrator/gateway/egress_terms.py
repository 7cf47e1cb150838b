"""What the tasks of one workspace may do by the way out, looked up while they do it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from orchestrator.domain.egress import EgressLimits, HostRule
from orchestrator.domain.workspace_settings import Allowance, effective
from orchestrator.errors import DatabaseUnavailable
from orchestrator.ports import WorkspaceSettingsStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EgressTerms:
    """A workspace's own; `rules` are beside those that count for all."""

    limits: EgressLimits
    rules: tuple[HostRule, ...] = ()


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
    """

    def __init__(self, store: WorkspaceSettingsStore, allowance: Allowance) -> None:
        self._store = store
        self._allowance = allowance

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
            last = EgressTerms(counts.egress, counts.rules)
            return last

        return look_up
