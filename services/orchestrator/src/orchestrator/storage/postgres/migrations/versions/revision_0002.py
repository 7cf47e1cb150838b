"""Tasks that outlive their process."""

from orchestrator.storage.postgres.migrations.sql import run_sql_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Keep all that a task needs to be run again."""
    run_sql_beside(__file__, "0002_durable_tasks.sql")
