"""Workspaces, tasks and their events."""

from orchestrator.storage.postgres.migrations.sql import run_sql_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    run_sql_beside(__file__, "0001_tasks.sql")
