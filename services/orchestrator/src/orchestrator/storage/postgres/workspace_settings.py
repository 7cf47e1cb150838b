"""Settings of workspaces in Postgres."""

from pydantic import TypeAdapter

from orchestrator.domain.workspace_settings import WorkspaceSettings
from orchestrator.errors import WorkspaceNotFound
from orchestrator.storage.postgres.pool import Database
from orchestrator.storage.postgres.queries import load_queries
from orchestrator.storage.postgres.text import storable_text

_SHOWN_CHARS = 80
_FORM = TypeAdapter(WorkspaceSettings)


class PostgresWorkspaceSettings:
    """`ports.WorkspaceSettingsStore` on a migrated database.

    Every method may raise `DatabaseUnavailable` when Postgres does not answer, or not in time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = load_queries()

    async def get(self, workspace_id: str) -> WorkspaceSettings:
        """See `ports.WorkspaceSettingsStore`."""
        row = await self._database.row(self._queries.read_settings, storable_text(workspace_id))
        if row is None:
            raise _unknown(workspace_id)
        return _FORM.validate_python(row["settings"])

    async def put(self, workspace_id: str, settings: WorkspaceSettings) -> None:
        """See `ports.WorkspaceSettingsStore`."""
        value = _FORM.dump_python(settings, mode="json")
        known = storable_text(workspace_id)
        if await self._database.row(self._queries.keep_settings, known, value) is None:
            raise _unknown(workspace_id)


def _unknown(workspace_id: str) -> WorkspaceNotFound:
    shown = storable_text(workspace_id)[:_SHOWN_CHARS]
    return WorkspaceNotFound(
        f"There is no workspace {shown!r}: GET /workspaces lists them; the first task in it makes "
        "one.",
        workspace_id=shown,
    )
