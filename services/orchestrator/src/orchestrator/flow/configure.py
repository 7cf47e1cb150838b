"""Settings of a workspace: checked, kept, and what comes of them."""

from dataclasses import dataclass

import structlog

from orchestrator.domain.container import Limits
from orchestrator.domain.injection import SecretUse, require_granted
from orchestrator.domain.workspace_settings import (
    Allowance,
    EffectiveSettings,
    WorkspaceSettings,
    effective,
    require_allowed,
)
from orchestrator.errors import ConfigurationError, SettingRefused
from orchestrator.ports import Secrets, WorkspaceSettingsStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Configured:
    """What was set for a workspace, and what counts; `secrets` are the uses that are granted."""

    settings: WorkspaceSettings
    effective: EffectiveSettings
    secrets: tuple[SecretUse, ...] = ()


class Configure:
    """Reads and changes settings of workspaces.

    Args:
        store: Keeps them.
        allowance: What the deployment gives.
        secrets: The operator's.
    """

    def __init__(
        self, store: WorkspaceSettingsStore, allowance: Allowance, secrets: Secrets
    ) -> None:
        self._store = store
        self._allowance = allowance
        self._secrets = secrets

    async def get(self, workspace_id: str) -> Configured:
        """The settings of a workspace.

        Raises:
            WorkspaceNotFound: No workspace has this id.
        """
        settings = await self._store.get(workspace_id)
        granted = [use for use in settings.secrets if await self._is_granted(use)]
        return Configured(settings, effective(settings, self._allowance), tuple(granted))

    async def put(self, workspace_id: str, settings: WorkspaceSettings) -> Configured:
        """Replace the settings of a workspace.

        A container is made with them when it is next free; the way out follows at once.

        Raises:
            WorkspaceNotFound: No workspace has this id.
            SettingRefused: The deployment does not allow one of them; nothing is changed.
        """
        require_allowed(settings, self._allowance)
        for use in settings.secrets:
            await self._require_granted(use)
        await self._store.put(workspace_id, settings)
        return await self.get(workspace_id)

    async def limits(self, workspace_id: str) -> Limits:
        """What the container of a workspace may use.

        Raises:
            WorkspaceNotFound: No workspace has this id.
        """
        return effective(await self._store.get(workspace_id), self._allowance).container

    async def _is_granted(self, use: SecretUse) -> bool:
        try:
            await self._require_granted(use)
        except SettingRefused:
            return False
        return True

    async def _require_granted(self, use: SecretUse) -> None:
        try:
            secret = await self._secrets.get(use.secret)
        except ConfigurationError as failure:
            log.warning("secret_not_used", secret=use.secret, detail=failure.detail)
            raise SettingRefused(
                f"secrets: {use.secret} cannot be used as it is: the log tells the operator why.",
                setting="secrets",
            ) from None
        require_granted(use, secret)
