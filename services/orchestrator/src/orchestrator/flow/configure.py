"""Settings of a workspace: checked, kept, and what comes of them."""

from dataclasses import dataclass

from orchestrator.domain.container import Limits
from orchestrator.domain.workspace_settings import (
    Allowance,
    EffectiveSettings,
    WorkspaceSettings,
    effective,
    require_allowed,
)
from orchestrator.ports import WorkspaceSettingsStore


@dataclass(frozen=True, slots=True)
class Configured:
    """What was set for a workspace, and what counts."""

    settings: WorkspaceSettings
    effective: EffectiveSettings


class Configure:
    """Reads and changes settings of workspaces.

    Args:
        store: Keeps them.
        allowance: What the deployment gives.
    """

    def __init__(self, store: WorkspaceSettingsStore, allowance: Allowance) -> None:
        self._store = store
        self._allowance = allowance

    async def get(self, workspace_id: str) -> Configured:
        """The settings of a workspace.

        Raises:
            WorkspaceNotFound: No workspace has this id.
        """
        settings = await self._store.get(workspace_id)
        return Configured(settings, effective(settings, self._allowance))

    async def put(self, workspace_id: str, settings: WorkspaceSettings) -> Configured:
        """Replace the settings of a workspace.

        A container is made with them when it is next free; the way out follows at once.

        Raises:
            WorkspaceNotFound: No workspace has this id.
            SettingRefused: The deployment does not allow one of them; nothing is changed.
        """
        require_allowed(settings, self._allowance)
        await self._store.put(workspace_id, settings)
        return await self.get(workspace_id)

    async def limits(self, workspace_id: str) -> Limits:
        """What the container of a workspace may use.

        Raises:
            WorkspaceNotFound: No workspace has this id.
        """
        return (await self.get(workspace_id)).effective.container
