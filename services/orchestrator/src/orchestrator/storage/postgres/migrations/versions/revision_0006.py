"""Settings of workspaces."""

from orchestrator.storage.postgres.migrations.sql import run_sql_beside

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the column of settings."""
    run_sql_beside(__file__, "0006_workspace_settings.sql")
